"""What a source's rows are like, gathered batch by batch: for validation, the page, and drift since the last build."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from stages.corpus.buckets import Buckets
from stages.corpus.languages import MANY
from stages.corpus.text_length import word_counts

# Upper bounds of the length histogram's bins, words; the last bin is open.
LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# Distinct values that are counted at most: of scores and labels it only matters whether they are few.
MAX_DISTINCT = 10_000


class Profile:
    """Facts and distributions of the rows of a source."""

    def __init__(self, kind: str, declared: str, fields: Sequence[str], folder: Path) -> None:
        # Scored texts recur; of the other kinds each text is to stand there once, or once in each of many languages.
        self._unique = ("id", *(fields if kind != "scored" else ()))
        self._keys = {name: Buckets(folder / name) for name in (*self._unique, "entity")}
        self._kind, self._fields, self._many = kind, fields, declared == MANY
        self._rows = 0
        self._lengths = {name: np.zeros(len(LENGTHS) + 1, dtype=np.int64) for name in fields}
        self._words = dict.fromkeys(fields, 0)
        self._languages: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._scores: set[float] = set()
        self._sums = np.zeros(2)
        self._extremes = (np.inf, -np.inf)

    def add(self, table: pa.Table, splits: np.ndarray) -> None:
        """Take in rows with their splits."""
        items = np.arange(self._rows, self._rows + len(table))
        self._rows += len(table)
        language = _hashes(table["language"]) if self._many else np.zeros(len(table), dtype=np.uint64)
        for name in self._unique:
            self._keys[name].add(_hashes(table[name]) ^ language, items)
        entities = np.unique(np.rec.fromarrays([_hashes(table["entity"]), splits]))
        self._keys["entity"].add(entities["f0"], entities["f1"])
        for name in self._fields:
            words = word_counts(table[name])
            self._words[name] += int(words.sum())
            self._lengths[name] += np.bincount(np.searchsorted(LENGTHS, words), minlength=len(LENGTHS) + 1)
        self._languages.update(table["identified"].to_pylist())
        if self._kind == "scored":
            self._add_scores(table["score"].to_numpy())
        if self._kind == "labelled" and len(self._labels) < MAX_DISTINCT:
            self._labels.update(table["label"].to_pylist())

    def facts(self) -> dict[str, float]:
        """What the whole of a source is judged by; counts of what repeats are of rows beyond the first."""
        facts: dict[str, float] = {"rows": self._rows}
        facts |= {f"repeated_{name}": self._repeated(name) for name in self._unique}
        facts["entities_in_two_splits"] = self._entities_in_two_splits()
        if self._kind == "scored" and self._rows:
            mean, square = self._sums / self._rows
            facts["score_range"] = self._extremes[1] - self._extremes[0]
            facts["score_stdev"] = float(np.sqrt(max(0.0, square - mean**2)))
            facts["distinct_scores"] = len(self._scores)
        if self._kind == "labelled":
            facts["distinct_labels"] = len(self._labels)
        return facts

    def summary(self) -> dict[str, Any]:
        """Rows, words and lengths by text field, languages: what drift is told from. The same rows give the same."""
        return {
            "rows": self._rows,
            "words": {name: round(self._words[name] / max(1, self._rows), 1) for name in self._fields},
            "lengths": {name: self._lengths[name].tolist() for name in self._fields},
            "languages": dict(sorted(self._languages.items())),
        }

    def _add_scores(self, scores: np.ndarray) -> None:
        self._sums += scores.sum(), (scores**2).sum()
        self._extremes = min(self._extremes[0], scores.min()), max(self._extremes[1], scores.max())
        if len(self._scores) < MAX_DISTINCT:
            self._scores.update(np.unique(scores).tolist())

    def _repeated(self, name: str) -> int:
        return sum(len(entries) - len(np.unique(entries["key"])) for entries in self._keys[name].shared())

    def _entities_in_two_splits(self) -> int:
        found = 0
        for entries in self._keys["entity"].shared():
            pairs = np.unique(entries)  # entity and split
            found += len(pairs) - len(np.unique(pairs["key"]))
        return found


def drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """How a source differs from what it was.

    Returns:
        {rows, rows_before, words, words_before, lengths, languages}: words by field; the last two are total variation
        distances in [0, 1] of the distributions, of lengths the largest of any field.
    """
    moved = [_distance(before["lengths"].get(name, [0]), counts) for name, counts in now["lengths"].items()]
    languages = sorted({*before["languages"], *now["languages"]})
    then, today = ([one["languages"].get(name, 0) for name in languages] for one in (before, now))
    return {
        "rows": now["rows"], "rows_before": before["rows"],
        "words": now["words"], "words_before": before["words"],
        "lengths": max(moved), "languages": _distance(then, today),
    }  # fmt: skip


def _distance(before: Sequence[int], now: Sequence[int]) -> float:
    if len(before) != len(now) or not sum(before) or not sum(now):
        return 0.0 if list(before) == list(now) else 1.0
    left, right = (np.array(counts) / sum(counts) for counts in (before, now))
    return round(float(np.abs(left - right).sum() / 2), 4)


def _hashes(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in column.to_pylist()], dtype=np.uint64)


def earlier(file: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """The profiles of the last accepted build that had others than `now`; empty where there was none.

    Building the same rows again compares them with the same version as before.
    """
    if not file.exists():
        return {}
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return kept["before"] if kept["last"] == now else kept["last"]


def remember(file: Path, now: Mapping[str, Any]) -> None:
    """Keep the profiles of an accepted build, and of the one before."""
    before = earlier(file, now)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"last": now, "before": before}, sort_keys=True), encoding="utf-8")
    partial.rename(file)
