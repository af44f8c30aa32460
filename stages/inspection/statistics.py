"""Facts about all rows of a table, and a sample of them: counts, repeats, lengths, languages and labels."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import xxhash

from stages.corpus.cleaning import split_position
from stages.corpus.entities import component_names, text_entity
from stages.corpus.languages import LanguageCheck
from stages.corpus.normalisation import folded, normalise
from stages.corpus.records import Record, Row, Unreadable
from stages.corpus.text_length import count_words
from stages.inspection.columns import Roles, cell_text
from stages.recipe.curate import LanguageId

SAMPLE_ROWS, LANGUAGE_ROWS = 2000, 300


@dataclass
class TableFacts:
    """Facts about the rows of a table; what stands in lists belongs to the rows that are kept, in their order."""

    rows: int = 0
    unreadable: int = 0
    empty: int = 0
    repeated: int = 0
    positions: list[float] = field(default_factory=list)  # of the entities, in the splits
    labels: list[str] = field(default_factory=list)  # empty where a row has none
    scores: list[float] = field(default_factory=list)
    max_words: dict[str, int] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)  # of a sample

    @property
    def kept(self) -> int:
        """Rows that are neither empty nor repeat a text of an earlier row."""
        return len(self.positions)


def sample(records: Iterable[Record], count: int = SAMPLE_ROWS) -> list[Row]:
    """Return the first rows, from which the meaning of columns is told."""
    found: list[Row] = []
    for row in records:
        if not isinstance(row, Unreadable):
            found.append(row)
        if len(found) == count:
            break
    return found


def table_facts(records: Callable[[], Iterable[Record]], roles: Roles, seed: int) -> TableFacts:
    """Read all rows; in memory a row is some numbers, and a sample of the texts is kept."""
    facts, draw, seen = TableFacts(), random.Random(seed), set[int]()  # noqa: S311
    names = {role: roles.columns[role] for role in ("query", "document") if role in roles.columns}
    facts.max_words, facts.texts = dict.fromkeys(names, 1), {role: [] for role in names}
    kept_texts: list[tuple[str, ...]] = []
    components = _components(records, roles) if roles.kind == "scored" else None
    for row in records():
        facts.rows += 1
        if not _is_readable(row, roles):
            facts.unreadable += 1
            continue
        entity, label = next(components) if components else _cell(row, roles, "entity"), _cell(row, roles, "label")
        score = float(_cell(row, roles, "score") or "nan") if components else 0.0
        texts = tuple(normalise(cell_text(row, column)) for column in names.values())
        if not all(texts) or (roles.kind == "labelled" and not label) or math.isnan(score):
            facts.empty += 1
            continue
        keys = _keys(texts, is_joined=roles.kind == "scored")
        if not seen.isdisjoint(keys):
            facts.repeated += 1
            continue
        seen.update(keys)
        facts.positions.append(split_position(entity or text_entity(texts[-1]), seed))
        facts.labels.append(label)
        facts.scores.append(score)
        for role, text in zip(names, texts, strict=True):
            facts.max_words[role] = max(facts.max_words[role], count_words(text))
        place = facts.kept - 1 if facts.kept <= SAMPLE_ROWS else draw.randrange(facts.kept)
        if place == len(kept_texts):
            kept_texts.append(texts)
        elif place < SAMPLE_ROWS:
            kept_texts[place] = texts
    for role, of_role in zip(names, zip(*kept_texts, strict=True), strict=False):
        facts.texts[role] = list(of_role)
    return facts


def _components(records: Callable[[], Iterable[Record]], roles: Roles) -> Iterator[str]:
    """Name the entity of each readable row as `rows.scored` does: all pairs that share a text are one entity."""
    left, right = roles.columns["query"], roles.columns["document"]
    readable = (row for row in records() if _is_readable(row, roles))
    return component_names((cell_text(row, left), cell_text(row, right)) for row in readable)


def _is_readable(row: Record, roles: Roles) -> TypeGuard[Row]:
    """Whether a row could be read, and its score, where the table has scores, is a number or missing."""
    if isinstance(row, Unreadable):
        return False
    try:
        float(_cell(row, roles, "score") or "nan")
    except ValueError:
        return roles.kind != "scored"
    return True


def _cell(row: Row, roles: Roles, role: str) -> str:
    column = roles.columns.get(role)
    return "" if column is None else normalise(cell_text(row, column))


def _keys(texts: Sequence[str], is_joined: bool) -> list[int]:
    plain = [folded(text) for text in texts]
    named = ["\0".join(plain)] if is_joined else [f"{place}\0{text}" for place, text in enumerate(plain)]
    return [xxhash.xxh3_64_intdigest(text.encode(errors="replace")) for text in named]


def languages_of(texts: Sequence[str]) -> Counter[str]:
    """Count the languages of the texts that are long enough to tell."""
    check = LanguageCheck(LanguageId(min_words=4, min_confidence=0.6))
    return Counter(filter(None, map(check.identify, texts[:LANGUAGE_ROWS])))
