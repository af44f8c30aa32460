"""Cleaning: from records as read to rows that are normalised, within limits, in the declared language, with an id."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.corpus.languages import DECLARED, MULTIPLE, LanguageCheck
from stages.corpus.normalisation import normalise
from stages.corpus.records import GIVEN, MODEL, Record, Row, Unreadable
from stages.corpus.text_length import WORDS, Measure
from stages.recipe.curate import Source
from stages.recipe.fields import TEXT_FIELDS

# A row, and the reason why it is rejected or None.
Judged = tuple[Row, str | None]

# A batch ends at this many rows or characters, whichever comes first.
BATCH_ROWS, BATCH_CHARACTERS = 2048, 2**24
# Columns besides the texts whose values are compared, too.
_NAMES = ("entity", "label", "language")


@dataclass(frozen=True)
class SourceToRead:
    """A source of the recipe with the means to read it: its records, the seed, and the measure of text lengths."""

    section: Source
    seed: int
    records: Callable[[], Iterable[Record]]
    measure: Measure = WORDS

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the text fields."""
        return TEXT_FIELDS[self.section.kind]


def clean(source: SourceToRead, languages: LanguageCheck | None) -> Iterator[list[Judged]]:
    """Turn the records of a source into rows, in batches.

    Args:
        languages: None where the language is not checked.

    Yields:
        An accepted row has the columns of its kind, the `identified` language, and in `raw` its texts as read where
        cleaning changed them. A rejected row has `entity` and `texts`.
    """
    for batch in _batches(source.records(), source.fields):
        readable = [record for record in batch if not isinstance(record, Unreadable)]
        texts = [[normalise(record[name]) for name in source.fields] for record in readable]
        counts = iter(source.measure.count([text for of_row in texts for text in of_row]))
        cleaned = iter(texts)
        judged: list[Judged] = []
        for record in batch:
            if isinstance(record, Unreadable):
                judged.append(({"entity": None, "texts": [encodable(record.text)]}, record.reason))
            else:
                lengths = {name: next(counts) for name in source.fields}
                judged.append(_judge(record, next(cleaned), lengths, source, languages))
        yield judged


def _batches(records: Iterable[Record], fields: Sequence[str]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    num_characters = 0
    for record in records:
        batch.append(record)
        texts = [record.text] if isinstance(record, Unreadable) else [record[name] for name in fields]
        num_characters += sum(map(len, texts))
        if len(batch) >= BATCH_ROWS or num_characters >= BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _judge(
    record: Row, texts: list[str], lengths: Mapping[str, int], source: SourceToRead, languages: LanguageCheck | None
) -> Judged:
    section, fields = source.section, source.fields
    raw = [record[name] for name in fields]
    row: Row = {"source": section.name, "language": section.language, "license": section.license, "identified": ""}
    row |= record | {name: normalise(record[name]) for name in _NAMES if name in record}
    row |= dict(zip(fields, texts, strict=True))
    reason = _wrong_encoding(row) or _wrong_stated_language(row["language"], section.language)
    reason = reason or _wrong_length(lengths, source) or _wrong_values(row)
    if reason is None and languages:
        row["identified"], foreign = languages.check(texts, row["language"], made=row.get("origin") == MODEL)
        reason = foreign and f"{fields[foreign[0]]}: {foreign[1]}"
    if reason:
        return {"entity": encodable(record["entity"]), "texts": [encodable(text) for text in raw]}, reason
    if section.kind == "pairs":
        row["negatives"] = _cleaned_negatives(row.get("negatives", []))
        row.setdefault("origin", GIVEN)
    # Two languages may put a message in the same words.
    row["id"] = row_id(section.name, [*texts, row["language"]] if section.language == MULTIPLE else texts)
    row["raw"] = None if raw == texts else raw
    return row, None


def _cleaned_negatives(texts: Sequence[str]) -> list[str]:
    """Normalise explicit negatives; of empty ones, repeats, and those that are not UTF-8, none is kept."""
    normalised = [normalise(text) for text in texts]
    return [text for text in dict.fromkeys(normalised) if text and encodable(text) == text]


def encodable(text: str) -> str:
    """Write bytes of a text that were not UTF-8 as backslash escapes, so that it can be stored."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def split_of(entity: str, source: SourceToRead) -> str:
    """Choose the split of an entity by its hash: the same in every source of equal shares."""
    shares = source.section.splits
    position = split_position(entity, source.seed)
    if position < shares.test:
        return "test"
    return "dev" if position < shares.test + shares.dev else "train"


def split_position(entity: str, seed: int) -> float:
    """Return the place of an entity in [0, 1): the first of all are in test, the next in dev, the others in train."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{entity}".encode()).digest()[:8]) / 2**64


def row_id(source: str, texts: Sequence[str]) -> str:
    """Return the content address of a row within its source."""
    return f"{source}/{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}"


def _wrong_encoding(row: Row) -> str | None:
    for name, value in row.items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"{name}: not UTF-8"
    return None


def _wrong_stated_language(language: str, declared: str) -> str | None:
    """Compare the language that a row states with its source's; a row that states none has its source's."""
    if not DECLARED.match(language):
        return "language: no code such as en, pt-BR or en-de"
    return None if declared in (language, MULTIPLE) else f"language: {language}, not {declared}"


def _wrong_length(lengths: Mapping[str, int], source: SourceToRead) -> str | None:
    unit = source.measure.unit
    for name, (least, most) in source.section.lengths.items():
        if lengths[name] < least:
            return f"{name}: under {least} {unit}" if lengths[name] else f"{name}: empty"
        if lengths[name] > most:
            return f"{name}: over {most} {unit}"
    return None


def _wrong_values(row: Row) -> str | None:
    if "score" in row and not 0.0 <= row["score"] <= 1.0:
        return "score: empty" if math.isnan(row["score"]) else "score: outside [0, 1]"
    if "label" in row and not row["label"]:
        return "label: empty"
    if "translation" in row and row["translation"] == row["text"]:
        return "translation: the text again"
    return "document: the query again" if "query" in row and row["query"] == row["document"] else None
