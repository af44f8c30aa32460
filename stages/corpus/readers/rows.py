"""Tables as they are: data sets of the hub, folders in the same layout, and parquet, JSON lines, CSV or TSV files.

Options of every reader here: the columns to read; `config`, `split` and `revision` of a data set (one of a single
config needs no `config`, files need none of the three); `first`, how many rows to read at most. Rows come as a stream,
and no code of a data set ever runs. Of a list (`pos` of BGE's lines, several labels) the first value is read.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.corpus.entities import components, text_entity
from stages.corpus.locations import HubDataset, Place
from stages.corpus.readers.needles import planted
from stages.corpus.sentences import sentences

Record = dict[str, Any]

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"} | dict.fromkeys(_SEPARATORS, "csv")


def pairs(
    files: Sequence[Place], query: str, document: str, entity: str | None = None, **table: Any
) -> Iterator[Record]:
    """Pairs of two columns; the entity is that column, or the document's text where none is named."""
    return (
        _with_entity({"query": _text(row, query), "document": _text(row, document)}, row, entity, "document")
        for row in read_rows(files, **table)
    )


def labelled(
    files: Sequence[Place], text: str, label: str, entity: str | None = None, **table: Any
) -> Iterator[Record]:
    """Texts with a label, by its name where the data set has names; the entity is that column, or the text."""
    return (
        _with_entity({"text": _text(row, text), "label": _text(row, label)}, row, entity, "text")
        for row in read_rows(files, **table)
    )


def documents(files: Sequence[Place], text: str, entity: str | None = None, **table: Any) -> Iterator[Record]:
    """Texts alone; the entity is that column, or the text."""
    return (_with_entity({"text": _text(row, text)}, row, entity, "text") for row in read_rows(files, **table))


def needles(
    files: Sequence[Place], text: str, entity: str, stretch_words: float, seed: float, **table: Any
) -> Iterator[Record]:
    """Pairs of question -> stretch of a long text with the answer planted in it; the entity is that column."""
    return (
        record
        for row in read_rows(files, **table)
        for record in planted(
            _text(row, entity), sentences(" ".join(_text(row, text).split())), int(stretch_words), int(seed)
        )
    )


def scored(
    files: Sequence[Place], text_a: str, text_b: str, score: str, scale: float, **table: Any
) -> Iterator[Record]:
    """Pairs with a score in [0, `scale`]; the entity is the connected component of the texts that meet in pairs.

    All rows are read at once for it: scores by people are few.
    """
    table_rows = list(read_rows(files, **table))
    texts = [(_text(row, text_a), _text(row, text_b)) for row in table_rows]
    entities = [(text_entity(left), text_entity(right)) for left, right in texts]
    component = components(entities)
    return (
        {
            "entity": component[entity],
            "text_a": left,
            "text_b": right,
            "score": _number(row, score) / scale,
        }
        for row, (left, right), (entity, _) in zip(table_rows, texts, entities, strict=True)
    )


def read_rows(
    files: Sequence[Place],
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    first: float | None = None,
) -> Iterator[Record]:
    """Rows of files and data sets one after the other, the first `first` of them.

    Raises:
        FileNotFoundError: a data set is neither a folder nor within the hub's reach.
        ValueError: it has no such config or split, or a file is no table.
    """
    opened = [
        _open_data_set(place.name, config, split, revision) if isinstance(place, HubDataset) else _open_file(place)
        for place in files
    ]
    return itertools.islice(
        itertools.chain.from_iterable(_named(table) for table in opened), None if first is None else int(first)
    )


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


def _open_file(path: Path) -> Any:
    import datasets

    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in _BUILDERS:
        raise ValueError(f"{path}: expected one of {', '.join(_BUILDERS)}; convert it or correct the source's files")
    dialect = {"sep": _SEPARATORS[suffix]} if suffix in _SEPARATORS else {}
    return datasets.load_dataset(_BUILDERS[suffix], data_files=[str(path)], split="train", streaming=True, **dialect)


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


def _with_entity(record: Record, row: Mapping[str, Any], column: str | None, text: str) -> Record:
    return {"entity": text_entity(record[text]) if column is None else _text(row, column), **record}


def _text(row: Mapping[str, Any], column: str) -> str:
    value = _value(row, column)
    if isinstance(value, list):
        value = value[0] if value else None
    return "" if value is None else str(value)


def _number(row: Mapping[str, Any], column: str) -> float:
    """A number; what is missing is not a number, and cleaning rejects it."""
    value = _value(row, column)
    return math.nan if value is None else float(value)


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise ValueError(f"no column {column!r}: the rows have {sorted(row)}; correct the source's options")
    return row[column]
