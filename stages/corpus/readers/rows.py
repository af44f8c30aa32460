"""Readers of tables: parquet, JSON lines, CSV and TSV files, data sets of the hub, and folders laid out like these.

Options of every reader: the columns to read, among them `entity` and, where rows state theirs, `language`; `config`,
`split` and `revision` of a data set; `encoding`, `delimiter` and `quotes` of text files; `first`, how many rows to read
at most. Rows come as a stream, and no code of a data set ever runs. Of a list (`pos` of BGE's lines, several labels)
the first value is read, but all of `negatives`.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import datasets
from datasets.packaged_modules.csv.csv import CsvConfig

from stages.corpus.entities import component_names, text_entity
from stages.corpus.locations import HubDataset, Input
from stages.corpus.needles import question_records
from stages.corpus.normalisation import normalise
from stages.corpus.readers.files import TextFormat, no_column, rows_of_file
from stages.corpus.records import Record, Row, Unreadable, text_of
from stages.corpus.sentences import sentences


def pairs(
    inputs: Sequence[Input], query: str, document: str, negatives: str | None = None, **options: Any
) -> Iterator[Record]:
    """Read pairs of two columns; without a column of entities, the entity is the document's text.

    Args:
        negatives: columns with texts, or lists of texts, that do not answer the query, such as `neg` of BGE's lines, or
            `negative_1, negative_2` of triplets. A row may leave them empty.
    """
    columns = [] if negatives is None else [name.strip() for name in negatives.split(",")]
    return _text_records(inputs, {"query": query, "document": document}, "document", columns, **options)


def labelled(inputs: Sequence[Input], text: str, label: str, **options: Any) -> Iterator[Record]:
    """Read texts with a label, by its name where the data set has names; the entity is that column, or the text."""
    return _text_records(inputs, {"text": text, "label": label}, "text", **options)


def documents(inputs: Sequence[Input], text: str, **options: Any) -> Iterator[Record]:
    """Read texts alone; without a column of entities, the entity is the text."""
    return _text_records(inputs, {"text": text}, "text", **options)


def parallel(inputs: Sequence[Input], text: str, translation: str, **options: Any) -> Iterator[Record]:
    """Read texts with their translations; without a column of entities, the entity is the text."""
    return _text_records(inputs, {"text": text, "translation": translation}, "text", **options)


def needles(
    inputs: Sequence[Input], text: str, entity: str, stretch_words: float, seed: float, **table: Any
) -> Iterator[Record]:
    """Yield pairs of a question -> stretch of a long text with the answer planted in it; the entity is that column."""

    def questions(row: Record) -> Iterator[Record]:
        if isinstance(row, Unreadable):
            return iter([row])
        parts = sentences(" ".join(row["text"].split()))
        return question_records(row["entity"], parts, int(stretch_words), int(seed))

    return itertools.chain.from_iterable(map(questions, documents(inputs, text, entity=entity, **table)))


def scored(
    inputs: Sequence[Input],
    text_a: str,
    text_b: str,
    score: str,
    scale: float,
    language: str | None = None,
    **table: Any,
) -> Iterator[Record]:
    """Read pairs with a score in [0, `scale`]; the entity is the connected component of the texts that are paired.

    The rows are read twice, because components are known only at their end.
    """

    def record(row: Row) -> Row:
        texts = {"text_a": _text(row, text_a), "text_b": _text(row, text_b)}
        return _language(row, language) | texts | {"score": _number(row, score) / scale}

    def read() -> Iterator[Record]:
        return _records(_rows(inputs, [text_a, text_b, score, language], **table), record)

    read()  # wrong options are an error before anything is read
    return _in_components(read)


def _in_components(read: Callable[[], Iterator[Record]]) -> Iterator[Record]:
    names = component_names((row["text_a"], row["text_b"]) for row in read() if not isinstance(row, Unreadable))
    for row in read():
        yield row if isinstance(row, Unreadable) else {"entity": next(names), **row}


def _text_records(
    inputs: Sequence[Input],
    columns: Mapping[str, str],
    entity_text: str,
    negatives: Sequence[str] = (),
    entity: str | None = None,
    language: str | None = None,
    **table: Any,
) -> Iterator[Record]:
    """Read columns by field; a row whose cell of `entity` is empty is named by its field `entity_text`."""

    def record(row: Row) -> Row:
        texts = {field: _text(row, column) for field, column in columns.items()}
        name = "" if entity is None else normalise(_text(row, entity))
        about = {"entity": name or text_entity(texts[entity_text])}
        told_apart = {"negatives": [text for column in negatives for text in _texts(row, column)]} if negatives else {}
        return about | _language(row, language) | texts | told_apart

    return _records(_rows(inputs, [*columns.values(), *negatives, entity, language], negatives, **table), record)


def _rows(
    inputs: Sequence[Input],
    columns: Sequence[str | None],
    may_lack: Sequence[str] = (),
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    first: float | None = None,
    **written: Any,
) -> Iterator[Record]:
    """Read files and data sets one after the other, at most `first` rows of them.

    Args:
        may_lack: columns that any row but the first may lack.

    Raises:
        FileNotFoundError: a data set is neither a folder nor within the hub's reach.
        ValueError: it has no such config or split, or a file is no table, or the first row lacks a column.
    """
    names, text_format = list(dict.fromkeys(name for name in columns if name is not None)), TextFormat(**written)
    tables = [
        _with_columns(
            item,
            _with_label_names(_open_data_set(item.name, names, config, split, revision))
            if isinstance(item, HubDataset)
            else rows_of_file(item, names, text_format),
            names,
            may_lack,
        )
        for item in inputs
    ]
    return itertools.islice(itertools.chain.from_iterable(tables), None if first is None else int(first))


def _with_columns(
    item: Input, rows: Iterator[Record], columns: Sequence[str], may_lack: Sequence[str]
) -> Iterator[Record]:
    """Reject rows that lack a column; where the first row of a file or data set does, the options are wrong."""
    is_first = True
    for row in rows:
        if isinstance(row, Unreadable):
            yield row
            continue
        missing = [name for name in columns if name not in row]
        if missing and is_first:
            raise no_column(item.name if isinstance(item, HubDataset) else item, missing[0], list(row))
        is_first = False
        missing = [name for name in missing if name not in may_lack]
        yield Unreadable(f"no column {missing[0]}", _as_json(row)) if missing else row


class _WrongValue(Exception):
    """A cell is not what a record needs; the message is the reason."""


def _records(rows: Iterator[Record], record: Callable[[Row], Row]) -> Iterator[Record]:
    for row in rows:
        if isinstance(row, Unreadable):
            yield row
            continue
        try:
            yield record(row)
        except _WrongValue as error:
            yield Unreadable(str(error), _as_json(row))


def _open_data_set(
    name: str, columns: Sequence[str], config: str | None, split: str | None, revision: str | None
) -> Any:
    if split is None:
        raise ValueError(f"data set {name}: no split named; give one in the source's options (split: train)")
    try:
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        if isinstance(builder.config, CsvConfig):
            # Read as other CSV files are: pandas would guess types, by which NA is nothing and 007 the number 7.
            declared = builder.config.features or {}
            builder.config.na_filter = False
            builder.config.converters = {column: str for column in columns if column not in declared}
        return builder.as_streaming_dataset(split=split)
    except ValueError as error:
        message = " ".join(str(error).splitlines()[:2])
        raise ValueError(f"data set {name}: {message}; correct config or split in the source's options") from error
    except OSError as error:  # not found, gated, no network, or offline
        raise FileNotFoundError(
            f"data set {name}: neither a folder nor within the hub's reach ({error}); correct its name, log in where "
            "it is gated (hf auth login), or copy it to a folder and name that: hub:FOLDER"
        ) from error


def _with_label_names(table: Any) -> Iterator[Row]:
    """Replace the numbers of class labels by their names; a negative number says that the label is missing."""
    classes = {
        column: feature
        for column, feature in (table.features or {}).items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for row in table:
        numbers = {column: -1 if row[column] is None else int(row[column]) for column in classes}
        yield row | {column: classes[column].int2str(one) if one >= 0 else None for column, one in numbers.items()}


def _language(row: Row, column: str | None) -> Row:
    return {} if column is None else {"language": _text(row, column).replace("_", "-")}


def _text(row: Row, column: str) -> str:
    try:
        return text_of(row[column])
    except TypeError as error:
        raise _WrongValue(f"{column}: expected a text, got {error}") from None


def _texts(row: Row, column: str) -> list[str]:
    """Read the texts of a cell: of a list all, of an empty or absent cell none."""
    value = row.get(column)
    return [_text({column: one}, column) for one in (value if isinstance(value, list) else [value])]


def _number(row: Row, column: str) -> float:
    """Read a number; a missing one becomes NaN, which cleaning rejects."""
    value = row[column]
    value = normalise(value) if isinstance(value, str) else value
    try:
        return math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        raise _WrongValue(f"{column}: expected a number, got {type(value).__name__}") from None


def _as_json(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)
