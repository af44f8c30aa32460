"""Preview of sources before a build: their first rows as they are parsed, and the rows that would be rejected."""

import bisect
import itertools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stages.corpus.cleaning import SourceToRead, clean
from stages.corpus.languages import LanguageCheck
from stages.corpus.records import Row
from stages.corpus.roles import language_namespace, text_keys
from stages.corpus.sources import source_to_read
from stages.recipe.paths import RECIPE
from stages.recipe.recipe import read

SHOWN_ROWS, READ_ROWS = 10, 500
TEXT_COLUMNS = 60  # of a terminal
# Unicode marks that keep a text written from right to left from turning the rest of the line round.
ISOLATE, END_ISOLATE = "\u2068", "\u2069"


def preview(*names: str, file: Path = RECIPE) -> None:
    """Print ten parsed rows of the named sources, or of all, and the reasons for which rows would be rejected.

    Args:
        names: sources of the recipe; none for all of them.
        file: the recipe.

    Raises:
        ValueError: the recipe is wrong or has no such source, or a source cannot be read.

    Example:
        >>> preview("faq")
    """
    recipe = read(file)
    sources = {source.name: source for source in recipe.curate.sources}
    if unknown := sorted(set(names) - sources.keys()):
        raise ValueError(f"got {unknown}, which are no sources of {file}; name some of {list(sources)}")
    rules, unreadable = recipe.curate.language_id, []
    languages = None if rules is None else LanguageCheck(rules)
    for name in names or sources:
        try:
            source = source_to_read(sources[name], recipe.seed, recipe.distill.backbone.path)
            print(preview_source(source, languages), flush=True)
        except (ValueError, OSError, LookupError, ImportError) as error:
            print(f"== {name}: cannot be read: {error}\n", flush=True)
            unreadable.append(name)
    if unreadable:
        raise ValueError(f"{', '.join(unreadable)}: cannot be read; the reasons are above")


def preview_source(source: SourceToRead, languages: LanguageCheck | None) -> str:
    """Show the first 10 rows, one a line, and the reasons for which rows of the first 500 would be rejected.

    Near duplicates and test rows in train, which only all rows together show, are not looked for.

    Raises:
        ValueError, OSError: the source cannot be read.
    """
    first = replace(source, records=lambda: itertools.islice(source.records(), READ_ROWS))
    shown: list[str] = []
    reasons: Counter[str] = Counter()
    seen: set[int] = set()
    judged = list(itertools.chain.from_iterable(clean(first, languages)))
    for number, (row, fault) in enumerate(judged):
        reason = fault or _repeated(row, source, seen)
        if reason:
            reasons[reason] += 1
        if number < SHOWN_ROWS:
            shown.append(f"  {_line(row, source.fields)}" + (f"\n    rejected: {reason}" if reason else ""))
    section = source.section
    heading = f"== {section.name} ({section.kind}, {section.language}, {section.license})"
    rejected = [f"  {rows:4} {reason}" for reason, rows in reasons.most_common()] or ["  none"]
    return "\n".join([heading, *shown, f"  rejected of the first {len(judged)} rows:", *rejected, ""])


def _repeated(row: Row, source: SourceToRead, seen: set[int]) -> str | None:
    namespace = language_namespace(row, source.section.language)
    keys = text_keys(row, source.section.kind, source.fields, namespace)
    repeated = [name for name, key in zip(source.fields, keys, strict=False) if key in seen]
    if repeated:
        return f"{repeated[0]}: duplicate"
    seen.update(keys)
    return None


def _line(row: Row, fields: Sequence[str]) -> str:
    texts = row.get("texts") or [row[name] for name in fields]
    others = [f"{name}={row[name]}" for name in ("score", "label") if name in row]
    return " | ".join([*(_isolated(_cut(text)) for text in texts), *others])


def _cut(text: str) -> str:
    """Cut a text to the columns of a terminal that it may take; a Han letter or kana takes two."""
    text = " ".join(text[: 4 * TEXT_COLUMNS].split())
    ends = list(itertools.accumulate(_columns(letter) for letter in text))
    if not ends or ends[-1] <= TEXT_COLUMNS:
        return text
    return f"{text[: bisect.bisect_right(ends, TEXT_COLUMNS - 1)]}…"


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _isolated(text: str) -> str:
    right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
    return f"{ISOLATE}{text}{END_ISOLATE}" if right_to_left else text
