"""From records as read to rows as kept: normalised, within limits, once each, split by entity."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.corpus.tables import SCHEMAS

Row = dict[str, Any]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Limits:
    """What a source's rows are held against."""

    words: Mapping[str, tuple[int, int]]  # text field -> least and most words
    dev: float
    test: float
    max_rows: int | None
    seed: int


@dataclass
class Cleaned:
    """Rows of a source by split, and the rejected ones with their reason."""

    splits: dict[str, list[Row]] = field(default_factory=lambda: {"train": [], "dev": [], "test": []})
    rejected: list[Row] = field(default_factory=list)
    num_read: int = 0


def clean(records: Iterable[Row], origin: Mapping[str, str], limits: Limits) -> Cleaned:
    """Normalise, judge, de-duplicate and split the records of one source.

    Args:
        records: rows with `entity` and the text fields that `limits.words` names.
        origin: `source`, `kind`, `language` and `license`, the same for every row.
        limits: see `Limits`.
    """
    cleaned = Cleaned()
    kept: list[Row] = []
    seen: dict[str, set[str]] = {name: set() for name in limits.words}
    # In the schema's order, not the recipe's: the id of a row must not depend on how a mapping was written.
    fields = tuple(name for name in SCHEMAS[origin["kind"]].names if name in limits.words)
    columns = {name: origin[name] for name in ("source", "language", "license")}
    for record in records:
        cleaned.num_read += 1
        row = record | {name: normalise(record[name]) for name in fields}
        reason = _fault(row, limits.words) or _duplicate(row, fields, seen, origin["kind"])
        if reason:
            cleaned.rejected.append(_rejected(record, fields, origin, reason))
        else:
            kept.append(row | columns | {"id": row_id(origin["source"], [row[name] for name in fields])})
    for row in sample(kept, limits.max_rows, limits.seed):
        cleaned.splits[split_of(row["entity"], limits)].append(row)
    return cleaned


def normalise(text: str) -> str:
    """Unicode NFC, control characters out, white space folded."""
    return " ".join(_CONTROL.sub(" ", unicodedata.normalize("NFC", text)).split())


def split_of(entity: str, limits: Limits) -> str:
    """Split of an entity by its hash: the same in every source, whatever else is read."""
    position = int.from_bytes(hashlib.sha256(f"{limits.seed}:{entity}".encode()).digest()[:8]) / 2**64
    if position < limits.test:
        return "test"
    return "dev" if position < limits.test + limits.dev else "train"


def sample(rows: list[Row], max_rows: int | None, seed: int) -> list[Row]:
    """At most `max_rows` rows, chosen by hash so that a few more rows in the source change few choices."""
    if max_rows is None or len(rows) <= max_rows:
        return rows

    def rank(row: Row) -> bytes:
        return hashlib.sha256(f"{seed}:{row['id']}".encode()).digest()

    chosen = {row["id"] for row in sorted(rows, key=rank)[:max_rows]}
    return [row for row in rows if row["id"] in chosen]


def row_id(source: str, texts: Sequence[str]) -> str:
    """Content address of a row within its source."""
    return f"{source}/{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}"


def _fault(row: Row, words: Mapping[str, tuple[int, int]]) -> str | None:
    for name, (least, most) in words.items():
        count = len(row[name].split())
        if count < least:
            return f"{name}: empty" if count == 0 else f"{name}: under {least} words"
        if count > most:
            return f"{name}: over {most} words"
    if "score" in row and not 0.0 <= row["score"] <= 1.0:
        return "score: outside [0, 1]"
    return None


def _duplicate(row: Row, fields: Sequence[str], seen: dict[str, set[str]], kind: str) -> str | None:
    """A pair's query and document must each be new (a repeated one is a false negative of the other row)."""
    if kind == "scored":  # texts recur there, pairs must not
        keys = {fields[0]: "\0".join(sorted(row[name].casefold() for name in fields))}
    else:
        keys = {name: row[name].casefold() for name in fields}
    for name, key in keys.items():
        if key in seen[name]:
            return f"{name}: duplicate"
    for name, key in keys.items():
        seen[name].add(key)
    return None


def _rejected(record: Row, fields: Sequence[str], origin: Mapping[str, str], reason: str) -> Row:
    return {
        "source": origin["source"],
        "kind": origin["kind"],
        "reason": reason,
        "entity": record["entity"],
        "texts": [record[name] for name in fields],
    }
