"""Tables as they are: data sets of the hub, folders in the same layout, and parquet, JSON lines, CSV or TSV files.

Options of every reader here: the columns to read, `language` among them where rows say theirs; `config`, `split` and
`revision` of a data set (one of a single config needs no `config`, files need none of the three); `first`, how many
rows to read at most. Rows come as a stream, and no code of a data set ever runs. Of a list (`pos` of BGE's lines,
several labels) the first value is read. A row that is no record comes as `Unreadable`.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stages.corpus.entities import Components, text_entity
from stages.corpus.locations import HubDataset, Place
from stages.corpus.packaged.needles import planted
from stages.corpus.readers.files import no_column, rows_of_file
from stages.corpus.readers.unreadable import Unreadable
from stages.corpus.sentences import sentences

Record = dict[str, Any]


class _WrongRow(Exception):
    """A row lacks what a record needs; its message is the reason."""


def pairs(
    files: Sequence[Place],
    query: str,
    document: str,
    entity: str | None = None,
    language: str | None = None,
    **table: Any,
) -> Iterator[Record | Unreadable]:
    """Pairs of two columns; the entity is that column, or the document's text where none is named."""

    def record(row: Record) -> Record:
        texts = {"query": _text(row, query), "document": _text(row, document)}
        return _about(row, entity, texts["document"], language) | texts

    return _records(read_rows(files, _columns(query, document, entity, language), **table), record)


def labelled(
    files: Sequence[Place],
    text: str,
    label: str,
    entity: str | None = None,
    language: str | None = None,
    **table: Any,
) -> Iterator[Record | Unreadable]:
    """Texts with a label, by its name where the data set has names; the entity is that column, or the text."""

    def record(row: Record) -> Record:
        texts = {"text": _text(row, text), "label": _text(row, label)}
        return _about(row, entity, texts["text"], language) | texts

    return _records(read_rows(files, _columns(text, label, entity, language), **table), record)


def documents(
    files: Sequence[Place], text: str, entity: str | None = None, language: str | None = None, **table: Any
) -> Iterator[Record | Unreadable]:
    """Texts alone; the entity is that column, or the text."""

    def record(row: Record) -> Record:
        texts = {"text": _text(row, text)}
        return _about(row, entity, texts["text"], language) | texts

    return _records(read_rows(files, _columns(text, entity, language), **table), record)


def needles(
    files: Sequence[Place], text: str, entity: str, stretch_words: float, seed: float, **table: Any
) -> Iterator[Record | Unreadable]:
    """Pairs of question -> stretch of a long text with the answer planted in it; the entity is that column."""
    rows = documents(files, text, entity, **table)
    return itertools.chain.from_iterable(
        [row]
        if isinstance(row, Unreadable)
        else planted(row["entity"], sentences(" ".join(row["text"].split())), int(stretch_words), int(seed))
        for row in rows
    )


def scored(
    files: Sequence[Place],
    text_a: str,
    text_b: str,
    score: str,
    scale: float,
    language: str | None = None,
    **table: Any,
) -> Iterator[Record | Unreadable]:
    """Pairs with a score in [0, `scale`]; the entity is the connected component of the texts that meet in pairs.

    The rows are read twice: what meets what is known only at their end.
    """

    def record(row: Record) -> Record:
        texts = {"text_a": _text(row, text_a), "text_b": _text(row, text_b)}
        return _language(row, language) | texts | {"score": _number(row, score) / scale}

    def read() -> Iterator[Record | Unreadable]:
        return _records(read_rows(files, _columns(text_a, text_b, score, language), **table), record)

    read()  # wrong options are said before anything is read
    return _in_components(read)


def _in_components(read: Callable[[], Iterator[Record | Unreadable]]) -> Iterator[Record | Unreadable]:
    components = Components()
    for row in read():
        if not isinstance(row, Unreadable):
            components.link(row["text_a"], row["text_b"])
    names = components.names()
    for row in read():
        yield row if isinstance(row, Unreadable) else {"entity": next(names), **row}


def read_rows(
    files: Sequence[Place],
    columns: Sequence[str],
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    first: float | None = None,
) -> Iterator[Record | Unreadable]:
    """Rows of files and data sets one after the other, the first `first` of them, with the named columns.

    Raises:
        FileNotFoundError: a data set is neither a folder nor within the hub's reach.
        ValueError: it has no such config or split, or a file is no table, or the first row lacks a column.
    """
    tables = [
        _named(_open_data_set(place.name, config, split, revision))
        if isinstance(place, HubDataset)
        else rows_of_file(place, columns)
        for place in files
    ]
    rows = itertools.chain.from_iterable(tables)
    return itertools.islice(_selected(rows, columns), None if first is None else int(first))


def _selected(rows: Iterator[Record | Unreadable], columns: Sequence[str]) -> Iterator[Record | Unreadable]:
    """Rows that have the columns; the first one that reads as a row decides whether the options are right."""
    known = False
    for row in rows:
        if isinstance(row, Unreadable):
            yield row
            continue
        missing = [name for name in columns if name not in row]
        if missing and not known:
            raise no_column(missing[0], list(row))
        known = True
        yield Unreadable(f"no column {missing[0]}", _shown(row)) if missing else row


def _records(rows: Iterator[Record | Unreadable], record: Callable[[Record], Record]) -> Iterator[Record | Unreadable]:
    for row in rows:
        if isinstance(row, Unreadable):
            yield row
            continue
        try:
            yield record(row)
        except _WrongRow as error:
            yield Unreadable(str(error), _shown(row))


def _open_data_set(name: str, config: str | None, split: str | None, revision: str | None) -> Any:
    import datasets

    if split is None:
        raise ValueError(f"data set {name}: no split named; give one in the source's options (split: train)")
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
    except ValueError as error:
        said = " ".join(str(error).splitlines()[:2])
        raise ValueError(f"data set {name}: {said}; correct config or split in the source's options") from error
    except OSError as error:  # of which not found, gated, no network and offline are all kinds
        raise FileNotFoundError(
            f"data set {name}: neither a folder nor within the hub's reach ({error}); correct its name, log in where "
            "it is gated (hf auth login), or copy it to a folder and name that: hub:FOLDER"
        ) from error


def _named(table: Any) -> Iterator[Record]:
    """Rows with the names of class labels instead of their numbers."""
    import datasets

    classes = {
        column: feature
        for column, feature in (table.features or {}).items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for row in table:
        yield row | {column: feature.int2str(row[column]) for column, feature in classes.items()}


def _about(row: Mapping[str, Any], entity: str | None, text: str, language: str | None) -> Record:
    """The entity of a row, its text where no column says it or an empty cell, and its language where a column does."""
    said = "" if entity is None else _text(row, entity)
    return {"entity": said if said.strip() else text_entity(text), **_language(row, language)}


def _language(row: Mapping[str, Any], column: str | None) -> Record:
    return {} if column is None else {"language": _text(row, column).replace("_", "-")}


def _columns(*names: str | None) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict | list | bytes):
        raise _WrongRow(f"{column}: expected a text, got {type(value).__name__}")
    return "" if value is None else str(value)


def _number(row: Mapping[str, Any], column: str) -> float:
    """A number; what is missing is not a number, and cleaning rejects it."""
    value = row[column]
    try:
        return math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        raise _WrongRow(f"{column}: expected a number, got {type(value).__name__}") from None


def _shown(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)
