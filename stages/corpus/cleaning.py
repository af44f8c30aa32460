"""From records as read to rows: normalised, within limits, in the declared language, each with its id and split."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stages.corpus.languages import DECLARED, MANY, LanguageCheck
from stages.corpus.readers.unreadable import Unreadable
from stages.corpus.tables import SCHEMAS
from stages.corpus.text_length import WORDS, Measure

Row = dict[str, Any]

# Rows that are cleaned at once, or characters, whichever comes first.
BATCH_ROWS, BATCH_CHARACTERS = 512, 2**22
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Limits:
    """What a source's rows are held against."""

    lengths: Mapping[str, tuple[int, int]]  # text field -> least and most words or tokens
    dev: float
    test: float
    max_rows: int | None
    seed: int
    measure: Measure = WORDS


def text_fields(kind: str, lengths: Mapping[str, Any]) -> tuple[str, ...]:
    """Text fields in the schema's order, not the recipe's: an id must not depend on how a mapping was written."""
    return tuple(name for name in SCHEMAS[kind].names if name in lengths)


def judge(
    records: Iterable[Row | Unreadable], origin: Mapping[str, str], limits: Limits, languages: LanguageCheck | None
) -> Iterator[tuple[Row, str | None]]:
    """Every record as a row and None, or as what is kept of a rejected one and the reason.

    Args:
        records: rows with `entity` and the text fields that `limits.lengths` names; their `language` if they say it.
        origin: `source`, `kind`, `language` and `license`, the same for every row.
        languages: None where the language is not looked at.

    Yields:
        A row has the columns of its kind, the `identified` language, and in `raw` its texts as read where cleaning
        changed them; a rejected one has `entity` and `texts`.
    """
    cleaner = _Cleaner(text_fields(origin["kind"], limits.lengths), origin, limits, languages)
    for batch in _batches(records, cleaner.fields):
        yield from cleaner.judged(batch)


def _batches(records: Iterable[Row | Unreadable], fields: Sequence[str]) -> Iterator[list[Row | Unreadable]]:
    batch: list[Row | Unreadable] = []
    num_characters = 0
    for record in records:
        batch.append(record)
        num_characters += 0 if isinstance(record, Unreadable) else sum(len(record[name]) for name in fields)
        if len(batch) >= BATCH_ROWS or num_characters >= BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    yield batch


@dataclass(frozen=True)
class _Cleaner:
    fields: tuple[str, ...]
    origin: Mapping[str, str]
    limits: Limits
    languages: LanguageCheck | None

    def judged(self, batch: Sequence[Row | Unreadable]) -> Iterator[tuple[Row, str | None]]:
        """See `judge`; a batch at once, as a tokenizer counts many texts faster than one after another."""
        readable = [record for record in batch if not isinstance(record, Unreadable)]
        texts = [[normalise(record[name]) for name in self.fields] for record in readable]
        counts = iter(self.limits.measure.count([text for of_row in texts for text in of_row]))
        rows = iter(texts)
        for record in batch:
            if isinstance(record, Unreadable):
                yield {"entity": None, "texts": [encodable(record.text)]}, record.reason
            else:
                cleaned = dict(zip(self.fields, next(rows), strict=True))
                yield self._row(record, cleaned, {name: next(counts) for name in self.fields})

    def _row(self, record: Row, cleaned: dict[str, str], counts: Mapping[str, int]) -> tuple[Row, str | None]:
        declared, texts = self.origin["language"], list(cleaned.values())
        row = self._same | record | cleaned
        reason = _unencodable(row) or ("language" in record and _wrong_language(row["language"], declared)) or None
        reason = reason or _wrong_length(counts, self.limits) or _wrong_values(row)
        if reason is None and self.languages:
            row["identified"], foreign = self.languages.look(texts, row["language"])
            reason = foreign and f"{self.fields[foreign[0]]}: {foreign[1]}"
        raw = [record[name] for name in self.fields]
        if reason:
            return {"entity": encodable(record["entity"]), "texts": [encodable(text) for text in raw]}, reason
        # Two languages may put a message in the same words.
        row["id"] = row_id(self.origin["source"], [*texts, row["language"]] if declared == MANY else texts)
        row["raw"] = None if raw == texts else raw
        return row, None

    @cached_property
    def _same(self) -> Row:
        """What rows have in common, unless they say otherwise."""
        return {name: self.origin[name] for name in ("source", "language", "license")} | {"identified": ""}


def normalise(text: str) -> str:
    """Unicode NFC, control characters out, white space folded."""
    return " ".join(_CONTROL.sub(" ", unicodedata.normalize("NFC", text)).split())


def encodable(text: str) -> str:
    """A text as it can be written: bytes that were no UTF-8 as backslash escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def split_of(entity: str, limits: Limits) -> str:
    """Split of an entity by its hash: the same in every source, whatever else is read."""
    position = int.from_bytes(hashlib.sha256(f"{limits.seed}:{entity}".encode()).digest()[:8]) / 2**64
    if position < limits.test:
        return "test"
    return "dev" if position < limits.test + limits.dev else "train"


def row_id(source: str, texts: Sequence[str]) -> str:
    """Content address of a row within its source."""
    return f"{source}/{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}"


def _unencodable(row: Row) -> str | None:
    for name, value in row.items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"{name}: not UTF-8"
    return None


def _wrong_language(language: str, declared: str) -> str | None:
    """Of what a row says of itself: no language, or not the one that its source has."""
    if not DECLARED.match(language):
        return "language: no code such as en, pt-BR or en-de"
    return None if declared in (language, MANY) else f"language: {language}, not {declared}"


def _wrong_length(counts: Mapping[str, int], limits: Limits) -> str | None:
    for name, (least, most) in limits.lengths.items():
        if counts[name] < least:
            return f"{name}: under {least} {limits.measure.unit}" if counts[name] else f"{name}: empty"
        if counts[name] > most:
            return f"{name}: over {most} {limits.measure.unit}"
    return None


def _wrong_values(row: Row) -> str | None:
    if "score" in row and not 0.0 <= row["score"] <= 1.0:
        return "score: outside [0, 1]"
    if "label" in row and not row["label"].strip():
        return "label: empty"
    return "document: the query again" if "query" in row and row["query"] == row["document"] else None
