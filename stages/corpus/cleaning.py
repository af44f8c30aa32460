"""From records as read to rows: normalised, within limits, in the declared language, each with its id and split."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.corpus.languages import LanguageCheck, is_declared
from stages.corpus.readers.unreadable import Unreadable
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


def text_fields(kind: str, words: Mapping[str, Any]) -> tuple[str, ...]:
    """Text fields in the schema's order, not the recipe's: an id must not depend on how a mapping was written."""
    return tuple(name for name in SCHEMAS[kind].names if name in words)


def judge(
    records: Iterable[Row | Unreadable], origin: Mapping[str, str], limits: Limits, languages: LanguageCheck | None
) -> Iterator[tuple[Row, str | None]]:
    """Every record as a row and None, or as what is kept of a rejected one and the reason.

    Args:
        records: rows with `entity` and the text fields that `limits.words` names.
        origin: `source`, `kind`, `language` and `license`, the same for every row.
        languages: None where the language is not looked at.

    Yields:
        A row has the columns of its kind, the `identified` language, and in `raw` its texts as read where cleaning
        changed them; a rejected one has `entity` and `texts`.
    """
    fields = text_fields(origin["kind"], limits.words)
    columns = {name: origin[name] for name in ("source", "language", "license")}
    for record in records:
        if isinstance(record, Unreadable):
            yield {"entity": None, "texts": [encodable(record.text)]}, record.reason
            continue
        raw = [record[name] for name in fields]
        texts = [normalise(text) for text in raw]
        row = record | dict(zip(fields, texts, strict=True))
        identified = languages.identify(texts[-1]) if languages else ""
        reason = _unencodable(row) or _fault(row, limits.words) or _foreign(fields[-1], identified, origin["language"])
        if reason:
            yield {"entity": encodable(record["entity"]), "texts": [encodable(text) for text in raw]}, reason
        else:
            row["id"] = row_id(origin["source"], texts)
            yield row | columns | {"identified": identified, "raw": None if raw == texts else raw}, None


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


def _fault(row: Row, words: Mapping[str, tuple[int, int]]) -> str | None:
    for name, (least, most) in words.items():
        count = len(row[name].split())
        if count < least:
            return f"{name}: empty" if count == 0 else f"{name}: under {least} words"
        if count > most:
            return f"{name}: over {most} words"
    if "score" in row and not 0.0 <= row["score"] <= 1.0:
        return "score: outside [0, 1]"
    if "label" in row and not row["label"].strip():
        return "label: empty"
    return None


def _foreign(field: str, identified: str, declared: str) -> str | None:
    return None if is_declared(identified, declared) else f"{field}: in {identified}, not {declared}"
