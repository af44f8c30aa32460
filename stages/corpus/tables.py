"""The curated tables: one Arrow schema for each kind of row, one parquet file for each kind and split."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as arrow
import pyarrow.parquet as pq

SPLITS = ("train", "dev", "test")
# Rows of a parquet row group that is written as a stream.
GROUP_ROWS = 2**15

_PROVENANCE = [("entity", pa.string()), ("source", pa.string()), ("language", pa.string()), ("license", pa.string())]
SCHEMAS: dict[str, pa.Schema] = {
    # `negatives`: texts that the source itself says do not answer the query; an empty list where it names none.
    # `origin`: who or what asked the query, one of those in records.py.
    "pairs": pa.schema(
        [
            ("id", pa.string()),
            ("query", pa.string()),
            ("document", pa.string()),
            ("negatives", pa.list_(pa.string())),
            ("origin", pa.string()),
            *_PROVENANCE,
        ]
    ),
    "scored": pa.schema(
        [("id", pa.string()), ("text_a", pa.string()), ("text_b", pa.string()), ("score", pa.float64()), *_PROVENANCE]
    ),
    "labelled": pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.string()), *_PROVENANCE]),
    "documents": pa.schema([("id", pa.string()), ("text", pa.string()), *_PROVENANCE]),
    "parallel": pa.schema([("id", pa.string()), ("text", pa.string()), ("translation", pa.string()), *_PROVENANCE]),
}
# A rejected row keeps its texts as they were read.
REJECTED = pa.schema(
    [
        ("source", pa.string()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("entity", pa.string()),
        ("texts", pa.list_(pa.string())),
    ]
)


class TableWriter:
    """Writes a parquet file batch by batch under an explicit schema; the file has its name only when it is closed."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._partial = path, path.with_suffix(".partial")
        self._writer = pq.ParquetWriter(self._partial, schema)
        self._held: list[pa.Table] = []
        self._num_held = 0

    def write(self, rows: pa.Table) -> None:
        """Add rows; they reach the file in groups of `GROUP_ROWS`, whatever batches they come in."""
        self._held.append(rows)
        self._num_held += len(rows)
        while self._num_held >= GROUP_ROWS:
            held = pa.concat_tables(self._held)
            self._writer.write_table(held[:GROUP_ROWS])
            self._held, self._num_held = [held[GROUP_ROWS:]], len(held) - GROUP_ROWS

    def close(self) -> None:
        """Finish the file."""
        if self._num_held:
            self._writer.write_table(pa.concat_tables(self._held))
        self._writer.close()
        self._partial.rename(self._path)


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as parquet under an explicit schema; a failure leaves the file that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
    partial.rename(path)


def read_table(path: Path, sources: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet table, or only its rows of the named sources, in the file's order."""
    filters = None if sources is None else [("source", "in", list(sources))]
    return pq.read_table(path, filters=filters)


def read_texts(path: Path, column: str, source: str) -> Iterator[list[str]]:
    """Yield a column of a source's rows, texts or lists of texts, in the file's order, a batch of rows at a time."""
    of_source = arrow.field("source") == source
    for batch in arrow.dataset(path, format="parquet").to_batches(columns=[column], filter=of_source):
        values = batch.column(0)
        if pa.types.is_list(values.type):
            values = values.flatten()
        if len(values):
            yield values.to_pylist()


def given_negatives(pairs: pa.Table) -> list[list[str]]:
    """Return the negatives that the source of each pair names, but for texts that it also names as the pair's own."""
    rows = pairs.select(["query", "document", "negatives"]).to_pylist()
    return [[text for text in row["negatives"] or [] if text not in (row["query"], row["document"])] for row in rows]


def read_split(folder: Path, kind: str, split: str, sources: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a kind and split from the curated folder.

    Raises:
        ValueError: there are none, so nothing can be trained or measured on them.

    Example:
        >>> read_split(Path("data/curated"), "pairs", "train", ["faq"]).column_names
    """
    table = read_table(folder / kind / f"{split}.parquet", sources)
    if len(table) == 0:
        raise ValueError(f"{folder / kind}: no {split} rows of {list(sources or ['any source'])}; see its counts.json")
    return table
