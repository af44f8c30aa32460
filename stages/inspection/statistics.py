"""Facts about all rows of a table, and a sample of them: counts, repeats, lengths, languages and labels."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from stages.corpus.cleaning import split_position
from stages.corpus.entities import text_entity
from stages.corpus.languages import LanguageCheck
from stages.corpus.normalisation import folded, normalise
from stages.corpus.records import Record, Row, Unreadable
from stages.corpus.text_length import count_words
from stages.inspection.columns import Roles, cell_text
from stages.recipe.curate import LanguageId

SAMPLE_ROWS, LANGUAGE_ROWS = 2000, 300


@dataclass
class TableFacts:
    """Facts about the rows of a table."""

    rows: int = 0
    unreadable: int = 0
    empty: int = 0
    repeated: int = 0
    positions: list[float] = field(default_factory=list)  # of the rows that are kept, in the splits
    max_words: dict[str, int] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    texts: dict[str, list[str]] = field(default_factory=dict)  # of a sample
    scores: tuple[float, float] = (np.inf, -np.inf)

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


def table_facts(records: Iterable[Record], roles: Roles, seed: int) -> TableFacts:
    """Read all rows once; in memory a row is some numbers, and a sample of the texts is kept."""
    facts, draw, seen = TableFacts(), random.Random(seed), set[int]()  # noqa: S311
    names = {role: roles.columns[role] for role in ("query", "document") if role in roles.columns}
    facts.max_words, facts.texts = dict.fromkeys(names, 1), {role: [] for role in names}
    kept_texts: list[tuple[str, ...]] = []
    for row in records:
        facts.rows += 1
        if isinstance(row, Unreadable):
            facts.unreadable += 1
            continue
        texts = tuple(normalise(cell_text(row, column)) for column in names.values())
        if not all(texts):
            facts.empty += 1
            continue
        keys = _keys(texts, is_joined=roles.kind == "scored")
        if not seen.isdisjoint(keys):
            facts.repeated += 1
            continue
        seen.update(keys)
        entity = normalise(cell_text(row, roles.columns["entity"])) if "entity" in roles.columns else ""
        facts.positions.append(split_position(entity or text_entity(texts[-1]), seed))
        for role, text in zip(names, texts, strict=True):
            facts.max_words[role] = max(facts.max_words[role], count_words(text))
        if "label" in roles.columns and (label := normalise(cell_text(row, roles.columns["label"]))):
            facts.labels[label] += 1
        if "score" in roles.columns:
            _extend_scores(facts, cell_text(row, roles.columns["score"]))
        place = facts.kept - 1 if facts.kept <= SAMPLE_ROWS else draw.randrange(facts.kept)
        if place == len(kept_texts):
            kept_texts.append(texts)
        elif place < SAMPLE_ROWS:
            kept_texts[place] = texts
    for role, of_role in zip(names, zip(*kept_texts, strict=True), strict=False):
        facts.texts[role] = list(of_role)
    return facts


def _keys(texts: Sequence[str], is_joined: bool) -> list[int]:
    plain = [folded(text) for text in texts]
    named = ["\0".join(plain)] if is_joined else [f"{place}\0{text}" for place, text in enumerate(plain)]
    return [xxhash.xxh3_64_intdigest(text.encode(errors="replace")) for text in named]


def _extend_scores(facts: TableFacts, score: str) -> None:
    try:
        number = float(score)
    except ValueError:
        return
    facts.scores = min(facts.scores[0], number), max(facts.scores[1], number)


def languages_of(texts: Sequence[str]) -> Counter[str]:
    """Count the languages of texts, as far as they are long enough to tell, else of all of them joined."""
    check = LanguageCheck(LanguageId(min_words=4, min_confidence=0.6))
    found = Counter(filter(None, map(check.identify, texts[:LANGUAGE_ROWS])))
    return found or Counter(filter(None, [check.identify(" ".join(texts[:20]))]))
