"""Profiles of sources: facts and distributions of their rows, for validation and for drift since the last build."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from stages.corpus.buckets import Buckets
from stages.corpus.languages import MULTIPLE
from stages.corpus.normalisation import folded
from stages.corpus.text_length import word_counts
from stages.recipe.curate import Source
from stages.recipe.fields import TEXT_FIELDS

# Upper bounds of the length histogram's bins in words; the last bin is open.
LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# Most distinct scores or labels that are counted: it only matters whether they are few.
MAX_DISTINCT = 10_000


class Profile:
    """Facts and distributions of the rows of a source, gathered batch by batch.

    Args:
        folder: a new folder for the keys of texts.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source, self._fields = source, TEXT_FIELDS[source.kind]
        # Scored texts recur; texts of the other kinds occur in a source once, or once in each of its languages.
        self._unique = ("id", *(self._fields if source.kind != "scored" else ()))
        self._keys = {name: Buckets(folder / name) for name in (*self._unique, "entity")}
        self._rows = 0
        self._lengths = {name: np.zeros(len(LENGTHS) + 1, dtype=np.int64) for name in self._fields}
        self._words = dict.fromkeys(self._fields, 0)
        self._languages: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._scores: set[float] = set()
        self._sums = np.zeros(2)
        self._extremes = (np.inf, -np.inf)

    def add(self, table: pa.Table, splits: np.ndarray) -> None:
        """Add rows with their splits."""
        items = np.arange(self._rows, self._rows + len(table))
        self._rows += len(table)
        language = np.uint64(0) if self._source.language != MULTIPLE else _hashes(table["language"])
        for name in self._unique:
            self._keys[name].add(_hashes(table[name]) ^ language, items)
        entities = np.unique(np.rec.fromarrays([_hashes(table["entity"]), splits]))
        self._keys["entity"].add(entities["f0"], entities["f1"])
        for name in self._fields:
            words = word_counts(table[name])
            self._words[name] += int(words.sum())
            self._lengths[name] += np.bincount(np.searchsorted(LENGTHS, words), minlength=len(LENGTHS) + 1)
        self._languages.update(table["identified"].to_pylist())
        if self._source.kind == "scored":
            self._add_scores(table["score"].to_numpy())
        if self._source.kind == "labelled" and len(self._labels) < MAX_DISTINCT:
            self._labels.update(table["label"].to_pylist())

    def facts(self) -> dict[str, float]:
        """Return the facts by which a source is judged as a whole; repeated rows are counted beyond the first."""
        facts: dict[str, float] = {"rows": self._rows}
        facts |= {f"repeated_{name}": self._repeated(name) for name in self._unique}
        facts["entities_in_two_splits"] = self._entities_in_two_splits()
        if self._source.kind == "scored" and self._rows:
            mean, square = self._sums / self._rows
            facts["score_range"] = self._extremes[1] - self._extremes[0]
            facts["score_stdev"] = float(np.sqrt(max(0.0, square - mean**2)))
            facts["distinct_scores"] = len(self._scores)
        if self._source.kind == "labelled":
            facts["distinct_labels"] = len(self._labels)
        return facts

    def summary(self) -> dict[str, Any]:
        """Return the statistics used to measure drift: rows, mean words and lengths of each text field, languages.

        Where labels differ in their capitals only, or in forms of letters that `folded` makes one, they are in
        `similar_labels`, a list for each.
        """
        similar = self._similar_labels()
        return {
            "rows": self._rows,
            "words": {name: round(self._words[name] / max(1, self._rows), 1) for name in self._fields},
            "lengths": {name: self._lengths[name].tolist() for name in self._fields},
            "languages": dict(sorted(self._languages.items())),
            **({"similar_labels": similar} if similar else {}),
        }

    def _similar_labels(self) -> list[list[str]]:
        alike: dict[str, list[str]] = {}
        for label in sorted(self._labels):
            alike.setdefault(folded(label), []).append(label)
        return [labels for labels in alike.values() if len(labels) > 1]

    def _add_scores(self, scores: np.ndarray) -> None:
        self._sums += scores.sum(), (scores**2).sum()
        self._extremes = min(self._extremes[0], scores.min()), max(self._extremes[1], scores.max())
        if len(self._scores) < MAX_DISTINCT:
            self._scores.update(np.unique(scores).tolist())

    def _repeated(self, name: str) -> int:
        return sum(len(entries) - len(np.unique(entries["key"])) for entries in self._keys[name].shared())

    def _entities_in_two_splits(self) -> int:
        by_part = [np.unique(entries) for entries in self._keys["entity"].shared()]  # pairs of entity and split
        return sum(len(pairs) - len(np.unique(pairs["key"])) for pairs in by_part)


def drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the summaries of two versions of a source.

    Returns:
        {rows, rows_before, words, words_before, lengths, languages}: words by field; the last two are total variation
        distances in [0, 1] of the distributions, for lengths the largest of any field.
    """
    lengths = [_distance(before["lengths"].get(name, [0]), counts) for name, counts in now["lengths"].items()]
    languages = sorted({*before["languages"], *now["languages"]})
    counts_before, counts = ([profile["languages"].get(name, 0) for name in languages] for profile in (before, now))
    return {
        "rows": now["rows"], "rows_before": before["rows"],
        "words": now["words"], "words_before": before["words"],
        "lengths": max(lengths), "languages": _distance(counts_before, counts),
    }  # fmt: skip


def _distance(before: Sequence[int], now: Sequence[int]) -> float:
    if len(before) != len(now) or not sum(before) or not sum(now):
        return 0.0 if list(before) == list(now) else 1.0
    left, right = (np.array(counts) / sum(counts) for counts in (before, now))
    return round(float(np.abs(left - right).sum() / 2), 4)


def _hashes(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in column.to_pylist()], dtype=np.uint64)


def earlier(file: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """Read the profiles of the last accepted build that differ from `now`; empty where there was none.

    So a build of the same rows again is compared with the same version as before.
    """
    if not file.exists():
        return {}
    accepted: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return accepted["before"] if accepted["last"] == now else accepted["last"]


def remember(file: Path, now: Mapping[str, Any]) -> None:
    """Write the profiles of an accepted build, and of the build before it."""
    before = earlier(file, now)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"last": now, "before": before}, sort_keys=True), encoding="utf-8")
    partial.rename(file)
