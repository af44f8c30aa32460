"""A look at a source before a build: its first rows as they are parsed, and what would be rejected of some more."""

import bisect
import itertools
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from stages.corpus.cleaning import judge, text_fields
from stages.corpus.languages import LanguageCheck
from stages.corpus.source_ingest import SourceToRead, apart, text_keys

ROWS, LOOKED_AT = 10, 500
WIDTH = 60  # columns of a text


def preview_source(source: SourceToRead, languages: LanguageCheck | None) -> str:
    """The first `ROWS` rows, one a line, and the reasons for which rows of the first `LOOKED_AT` would be rejected.

    What is seen only in all rows together (near duplicates, test rows in train) is not looked for.

    Raises:
        ValueError, OSError: the source cannot be read.
    """
    fields = text_fields(source.origin["kind"], source.limits.lengths)
    records = itertools.islice(source.records(), LOOKED_AT)
    shown: list[str] = []
    reasons: Counter[str] = Counter()
    seen: set[int] = set()
    number = 0
    for number, (row, fault) in enumerate(judge(records, source.origin, source.limits, languages), start=1):
        reason = fault or _repeated(row, source.origin, fields, seen)
        if reason:
            reasons[reason] += 1
        if number <= ROWS:
            shown.append(f"  {_line(row, fields)}" + (f"\n    rejected: {reason}" if reason else ""))
    origin = ", ".join(source.origin[name] for name in ("kind", "language", "license"))
    rejected = [f"  {rows:4} {reason}" for reason, rows in reasons.most_common()] or ["  none"]
    return "\n".join([f"== {source.name} ({origin})", *shown, f"  rejected of the first {number} rows:", *rejected, ""])


def _repeated(row: dict[str, Any], origin: Mapping[str, str], fields: tuple[str, ...], seen: set[int]) -> str | None:
    keys = text_keys(row, origin["kind"], fields, apart(row, origin["language"]))
    repeated = [name for name, key in zip(fields, keys, strict=False) if key in seen]
    if repeated:
        return f"{repeated[0]}: duplicate"
    seen.update(keys)
    return None


def _line(row: dict[str, Any], fields: tuple[str, ...]) -> str:
    texts = row.get("texts") or [row[name] for name in fields]
    beside = [f"{name}={row[name]}" for name in ("score", "label") if name in row]
    return " | ".join([*(_isolated(_cut(text)) for text in texts), *beside])


def _cut(text: str) -> str:
    """The start of a text that fits into `WIDTH` columns of a terminal, where a Han letter or kana takes two."""
    text = " ".join(text[: 4 * WIDTH].split())
    ends = list(itertools.accumulate(_columns(letter) for letter in text))
    if not ends or ends[-1] <= WIDTH:
        return text
    return f"{text[: bisect.bisect_right(ends, WIDTH - 1)]}…"


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _isolated(text: str) -> str:
    """A text written from right to left inside marks that keep it from turning the rest of the line round."""
    turned = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
    return f"\u2068{text}\u2069" if turned else text
