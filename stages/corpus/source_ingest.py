"""Ingest of a source: its clean rows on disk in reading order, and in memory the split and the status of each.

In memory a row is five bytes, a repeated one more; texts pass through in batches.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from stages.corpus.buckets import Buckets
from stages.corpus.cleaning import SourceToRead, clean, split_of
from stages.corpus.languages import LanguageCheck
from stages.corpus.rejected_rows import KEPT, OVER_MAX_ROWS, Reasons, RejectedRows
from stages.corpus.roles import SCORED, language_namespace, text_keys
from stages.corpus.tables import SCHEMAS, SPLITS
from stages.recipe.curate import Source

# With more labels than this, rows of single labels are not looked for: validation refuses the source.
MAX_LABELS = 100_000
# Up to so many rows, a split that is left all but empty is given entities of train.
FEW_ROWS = 100
_EXTRA_FIELDS = [pa.field("identified", pa.string()), pa.field("raw", pa.list_(pa.string()))]


@dataclass(frozen=True)
class SourceIngest:
    """The clean rows [R] of a source, in a file, with arrays that are as long."""

    source: SourceToRead
    file: Path
    num_read: int  # rejected records are among these
    splits: np.ndarray  # uint8, positions in SPLITS
    languages: np.ndarray  # uint16; a number for each language of a multilingual source, whose rows are compared by it
    row_status: np.ndarray  # uint16: KEPT, OVER_MAX_ROWS, or the number of the reason for rejecting the row

    @property
    def section(self) -> Source:
        """The source's section of the recipe."""
        return self.source.section

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the text fields."""
        return self.source.fields

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[tuple[slice, pa.Table]]:
        """Yield the rows in order, with the range of row numbers of each batch."""
        start = 0
        with pa.OSFile(str(self.file)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                table = pa.Table.from_batches([batch])
                yield slice(start, start + len(table)), table if columns is None else table.select(columns)
                start += len(table)

    def kept_rows(self) -> np.ndarray:
        """Return the numbers of the rows that are still kept."""
        return np.flatnonzero(self.row_status == KEPT)


def ingest(
    source: SourceToRead, languages: LanguageCheck | None, folder: Path, rejected: RejectedRows, reasons: Reasons
) -> SourceIngest:
    """Read and clean a source, then reject what repeats within it and choose the rows that `max_rows` allows.

    Args:
        languages: None where the language is not checked.
        folder: a new folder for the rows while curate runs.
    """
    keys = Buckets(folder / "keys")
    ingested = _read(source, languages, folder / "rows.arrow", rejected, keys)
    _reject_repeats(ingested, keys, reasons)
    if source.section.max_rows is not None:
        _sample(ingested, source.section.max_rows)
    if source.section.kind == "labelled":
        reject_single_labels(ingested, reasons)
    _fill_splits(ingested)
    return ingested


def _read(
    source: SourceToRead, languages: LanguageCheck | None, file: Path, rejected: RejectedRows, keys: Buckets
) -> SourceIngest:
    section, num_read, num_rows = source.section, 0, 0
    splits, language_numbers = [np.empty(0, dtype=np.uint8)], [np.empty(0, dtype=np.uint16)]
    schema = pa.schema([*SCHEMAS[section.kind], *_EXTRA_FIELDS])
    with pa.OSFile(str(file), "wb") as written, pa.ipc.new_stream(written, schema) as stream:
        for batch in clean(source, languages):
            num_read += len(batch)
            for row, reason in batch:
                if reason is not None:
                    rejected.add(section.name, section.kind, reason, row["entity"], row["texts"])
            rows = [row for row, reason in batch if reason is None]
            if rows:
                namespaces = [language_namespace(row, section.language) for row in rows]
                keys.add(*_numbered_keys(rows, namespaces, source, num_rows))
                splits.append(np.array([SPLITS.index(split_of(row["entity"], source)) for row in rows], dtype=np.uint8))
                language_numbers.append(np.array([_language_number(name) for name in namespaces], dtype=np.uint16))
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
                num_rows += len(rows)
    row_status = np.full(num_rows, KEPT, dtype=np.uint16)
    return SourceIngest(source, file, num_read, np.concatenate(splits), np.concatenate(language_numbers), row_status)


def _numbered_keys(
    rows: Sequence[Mapping[str, Any]], namespaces: Sequence[str], source: SourceToRead, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of rows [R], K a row, and the number of each: row number x K + its place in the row."""
    keys = np.array(
        [
            text_keys(row, source.section.kind, source.fields, namespace)
            for row, namespace in zip(rows, namespaces, strict=True)
        ],
        dtype=np.uint64,
    )
    return keys.reshape(-1), first_row * keys.shape[1] + np.arange(keys.size)


def _language_number(language: str) -> int:
    return xxhash.xxh3_64_intdigest(language.encode()) & 0xFFFF if language else 0


def _reject_repeats(ingested: SourceIngest, keys: Buckets, reasons: Reasons) -> None:
    """Reject rows that share a text with an earlier kept row, of which a repeated document is a false negative."""
    width = 1 if ingested.section.kind == SCORED else len(ingested.fields)
    parts = list(keys.shared())
    if not parts:
        return
    shared = np.concatenate(parts)
    shared = shared[np.argsort(shared["item"], kind="stable")]
    seen: set[int] = set()
    entries = zip(shared["item"].tolist(), shared["key"].tolist(), strict=True)
    for row, group in groupby(entries, key=lambda entry: entry[0] // width):
        of_row = list(group)
        repeated = next((item for item, key in of_row if key in seen), None)
        if repeated is None:
            seen.update(key for _, key in of_row)
        else:
            ingested.row_status[row] = reasons.number(f"{ingested.fields[repeated % width]}: duplicate")


def _sample(ingested: SourceIngest, max_rows: int) -> None:
    """Keep at most `max_rows` rows, chosen by hash so that a few more rows in the source change few choices."""
    kept = ingested.kept_rows()
    if len(kept) <= max_rows:
        return
    ids = (name for _, table in ingested.batches(["id"]) for name in table["id"].to_pylist())
    ranks = np.fromiter((_rank(ingested.source.seed, name) for name in ids), np.uint64)[kept]
    ingested.row_status[kept] = OVER_MAX_ROWS
    ingested.row_status[kept[np.argpartition(ranks, max_rows - 1)[:max_rows]]] = KEPT


def _fill_splits(ingested: SourceIngest) -> None:
    """Move entities of train into declared splits that the hashes left all but empty, as they may where rows are few.

    Test has two entities then, and dev one. A source keeps two entities for train. One of more than `FEW_ROWS` rows
    stays as it is.
    """
    shares, kept = ingested.section.splits, ingested.kept_rows()
    if len(kept) > FEW_ROWS or shares.dev + shares.test >= 1:
        return
    names = np.array([one for _, table in ingested.batches(["entity"]) for one in table["entity"].to_pylist()])
    order = sorted(set(names[kept].tolist()), key=lambda entity: _rank(ingested.source.seed, entity))

    def entities_of(split: str) -> list[str]:
        held = set(names[kept[ingested.splits[kept] == SPLITS.index(split)]].tolist())
        return [entity for entity in order if entity in held]

    for split, share, wanted in (("test", shares.test, 2), ("dev", shares.dev, 1)):
        lacking = wanted - len(entities_of(split)) if share else 0
        movable = entities_of("train")[:-2]
        for entity in movable[: max(0, lacking)]:
            ingested.splits[names == entity] = SPLITS.index(split)


def _rank(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8])


def reject_single_labels(ingested: SourceIngest, reasons: Reasons, split: str | None = None) -> None:
    """Reject rows whose label no other row has, of the source or of a split: training finds no positive for them."""
    considered = ingested.row_status == KEPT
    if split is not None:
        considered &= ingested.splits == SPLITS.index(split)
    counts: Counter[str] = Counter()
    for where, table in ingested.batches(["label"]):
        counts.update(table.filter(considered[where])["label"].to_pylist())
        if len(counts) > MAX_LABELS:
            return
    single = {label for label, rows in counts.items() if rows == 1}
    if not single:
        return
    number = reasons.number(f"label: of one {split} row only" if split else "label: of one row only")
    for where, table in ingested.batches(["label"]):
        alone = np.array([label in single for label in table["label"].to_pylist()])
        ingested.row_status[where][alone & considered[where]] = number
