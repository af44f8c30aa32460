"""A source taken in: its rows on disk in reading order, and of each what has become of it so far.

In memory a row is five bytes, a repeated one more; texts pass through in batches.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from stages.corpus.buckets import ENTRY, Buckets
from stages.corpus.cleaning import Limits, judge, split_of, text_fields
from stages.corpus.languages import MANY, LanguageCheck
from stages.corpus.minhash import text_key
from stages.corpus.quarantine import Quarantine
from stages.corpus.tables import SCHEMAS, SPLITS

# A batch ends at so many rows or characters, whichever comes first.
BATCH_ROWS, BATCH_CHARACTERS = 2048, 2**24
# Fates of a row; numbers above are places in `Reasons`.
KEPT, OVER_MAX_ROWS = 0, 1
# What texts are compared with: queries with queries, all else with all else, but scored pairs as a whole.
ROLES = QUERY, DOCUMENT = "query", "document"
SCORED = "scored"
# With more labels than this nothing is said of single ones; validation refuses the source.
MAX_LABELS = 100_000
Judged = tuple[dict[str, Any], str | None]
_BESIDE = [pa.field("identified", pa.string()), pa.field("raw", pa.list_(pa.string()))]


@dataclass(frozen=True)
class SourceToRead:
    """A source: its `source`, `kind`, `language` and `license`, what its rows are held against, and how to read it."""

    origin: Mapping[str, str]
    limits: Limits
    records: Callable[[], Iterable[Any]]

    @property
    def name(self) -> str:
        """The source's name."""
        return self.origin["source"]


class Reasons:
    """Reasons why rows are rejected, by number."""

    def __init__(self) -> None:
        self._texts = ["kept", "over max_rows"]

    def number(self, text: str) -> int:
        """The number of a reason, given out at its first use."""
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text)

    def __getitem__(self, number: int) -> str:
        return self._texts[number]


@dataclass
class Intake:
    """The rows of a source that passed cleaning; `splits` and `fates` [rows] go with them."""

    origin: Mapping[str, str]
    fields: tuple[str, ...]
    file: Path
    num_read: int
    identified: Counter[str]  # languages of all records that were long enough to tell
    splits: np.ndarray  # uint8, places in SPLITS
    fates: np.ndarray  # uint16
    languages: np.ndarray  # uint16; of a source of many languages each has a number, and repeats no text of its own

    @property
    def num_keys(self) -> int:
        """Keys of a row, as `text_keys` gives them."""
        return 1 if self.origin["kind"] == SCORED else len(self.fields)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[tuple[slice, pa.Table]]:
        """The rows in order, with where they stand."""
        start = 0
        with pa.OSFile(str(self.file)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                table = pa.Table.from_batches([batch])
                yield slice(start, start + len(table)), table if columns is None else table.select(columns)
                start += len(table)

    def kept_rows(self) -> np.ndarray:
        """Where the rows stand that are still kept."""
        return np.flatnonzero(self.fates == KEPT)


def take_in(
    source: SourceToRead, languages: LanguageCheck | None, folder: Path, quarantine: Quarantine, reasons: Reasons
) -> Intake:
    """Read, clean and judge a source, then find what repeats within it and what `max_rows` leaves out.

    Args:
        languages: None where the language is not looked at.
        folder: an empty one, for the rows while curate runs.
    """
    keys = Buckets(folder / "keys")
    intake = _read(source, languages, folder / "rows.arrow", quarantine, keys)
    _reject_repeats(intake, keys, reasons)
    if source.limits.max_rows is not None:
        _sample(intake, source.limits.max_rows, source.limits.seed)
    if source.origin["kind"] == "labelled":
        reject_single_labels(intake, reasons)
    return intake


def text_keys(row: Mapping[str, Any], kind: str, fields: Sequence[str], apart: str = "") -> list[int]:
    """A key for each text of a row; of a scored pair one for both, either way round: its texts may recur.

    Args:
        apart: rows that differ in it share no key, whatever their texts.
    """
    if kind == SCORED:
        return [text_key(f"{SCORED}{apart}", "\0".join(sorted(row[name].casefold() for name in fields)))]
    return [text_key(f"{role_of(kind, name)}{apart}", row[name]) for name in fields]


def apart(row: Mapping[str, Any], declared: str) -> str:
    """What keeps rows of a source of many languages apart: a message stands once in each of them."""
    return str(row["language"]) if declared == MANY else ""


def role_of(kind: str, field: str) -> str:
    """`SCORED`, or one of `ROLES`."""
    return SCORED if kind == SCORED else QUERY if field == QUERY else DOCUMENT


def _read(
    source: SourceToRead, languages: LanguageCheck | None, file: Path, quarantine: Quarantine, keys: Buckets
) -> Intake:
    origin, limits, kind = source.origin, source.limits, source.origin["kind"]
    fields = text_fields(kind, limits.lengths)
    schema = pa.schema([*SCHEMAS[kind], *_BESIDE])
    splits: list[np.ndarray] = []
    languages_of: list[np.ndarray] = []
    intake = Intake(origin, fields, file, 0, Counter(), np.empty(0), np.empty(0), np.empty(0))
    with pa.OSFile(str(file), "wb") as written, pa.ipc.new_stream(written, schema) as stream:
        for judged in _batches(judge(source.records(), origin, limits, languages), fields):
            intake.num_read += len(judged)
            rows = [row for row, reason in judged if reason is None]
            for row, reason in judged:
                if reason is not None:
                    quarantine.add(source.name, kind, reason, row["entity"], row["texts"])
            intake.identified.update(row["identified"] for row in rows if row["identified"])
            if rows:
                _add_keys(keys, rows, intake, sum(map(len, splits)))
                languages_of.append(
                    np.array([_number(apart(row, origin["language"])) for row in rows], dtype=np.uint16)
                )
                splits.append(np.array([SPLITS.index(split_of(row["entity"], limits)) for row in rows], dtype=np.uint8))
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    intake.splits = np.concatenate([np.empty(0, dtype=np.uint8), *splits])
    intake.languages = np.concatenate([np.empty(0, dtype=np.uint16), *languages_of])
    intake.fates = np.zeros(len(intake.splits), dtype=np.uint16)
    return intake


def _number(language: str) -> int:
    return xxhash.xxh3_64_intdigest(language.encode()) & 0xFFFF if language else 0


def _batches(judged: Iterable[Judged], fields: Sequence[str]) -> Iterator[list[Judged]]:
    batch: list[Judged] = []
    num_characters = 0
    for row, reason in judged:
        batch.append((row, reason))
        num_characters += sum(map(len, row["texts"] if reason else [row[name] for name in fields]))
        if len(batch) >= BATCH_ROWS or num_characters >= BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _add_keys(keys: Buckets, rows: Sequence[Mapping[str, Any]], intake: Intake, start: int) -> None:
    kind, declared = intake.origin["kind"], intake.origin["language"]
    found = np.array([text_keys(row, kind, intake.fields, apart(row, declared)) for row in rows], dtype=np.uint64)
    keys.add(found.reshape(-1), start * found.shape[1] + np.arange(found.size))


def _reject_repeats(intake: Intake, keys: Buckets, reasons: Reasons) -> None:
    """A pair's query and document must each be new (a repeated one is a false negative of the other row)."""
    width = intake.num_keys
    shared = np.concatenate(list(keys.shared()) or [np.empty(0, dtype=ENTRY)])
    shared = shared[np.argsort(shared["item"], kind="stable")]
    seen: set[int] = set()
    entries = zip(shared["item"].tolist(), shared["key"].tolist(), strict=True)
    for row, group in groupby(entries, key=lambda entry: entry[0] // width):
        of_row = list(group)
        repeated = next((item for item, key in of_row if key in seen), None)
        if repeated is None:
            seen.update(key for _, key in of_row)
        else:
            intake.fates[row] = reasons.number(f"{intake.fields[repeated % width]}: duplicate")


def _sample(intake: Intake, max_rows: int, seed: int) -> None:
    """At most `max_rows` rows, chosen by hash so that a few more rows in the source change few choices."""
    kept = intake.kept_rows()
    if len(kept) <= max_rows:
        return
    ranks = np.concatenate(
        [
            np.array([_rank(seed, name) for name in table["id"].to_pylist()], dtype=np.uint64)
            for _, table in intake.batches(["id"])
        ]
    )[kept]
    intake.fates[kept] = OVER_MAX_ROWS
    intake.fates[kept[np.argpartition(ranks, max_rows - 1)[:max_rows]]] = KEPT


def _rank(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8])


def reject_single_labels(intake: Intake, reasons: Reasons, split: str | None = None) -> None:
    """Reject the rows whose label no other row has, of all or of a split: they have no positive to be drawn with."""
    among = intake.fates == KEPT
    if split is not None:
        among &= intake.splits == SPLITS.index(split)
    counts: Counter[str] = Counter()
    for where, table in intake.batches(["label"]):
        counts.update(table.filter(among[where])["label"].to_pylist())
        if len(counts) > MAX_LABELS:
            return
    single = {label for label, rows in counts.items() if rows == 1}
    if not single:
        return
    number = reasons.number(f"label: of one {split} row only" if split else "label: of one row only")
    for where, table in intake.batches(["label"]):
        alone = np.array([label in single for label in table["label"].to_pylist()])
        intake.fates[where][alone & among[where]] = number
