"""Figures of scored rows, the difference of two of them with its interval, and what it says about a claim.

A figure is the mean over sources of a statistic of their rows: the mean of a column for `ndcg...` and `accuracy`,
Spearman's correlation for `spearman`, the mean over k-means starts for `v_measure`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import v_measure_score

Columns = dict[str, np.ndarray]  # column -> a value for each row
Scores = dict[str, Columns]  # by source

AGREES, DIFFERS, UNRESOLVED = "agrees", "does not agree", "unresolved"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a figure of a variant's scores, or how far it is from another of the same scores."""

    scores: Scores
    figure: str
    minus: str | None

    def value(self, rows: dict[str, np.ndarray] | None = None) -> float:
        """The figure of all rows, or of some by source."""
        value = figure(self.scores, self.figure, rows)
        return value if self.minus is None else value - figure(self.scores, self.minus, rows)


@dataclass(frozen=True)
class Difference:
    """How much one side is above the other, and the 95 % interval of that over resampled rows."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the first side is above the second, as claimed; unresolved where the interval holds 0."""
        if self.low > 0:
            return AGREES
        return DIFFERS if self.high < 0 else UNRESOLVED


def by_source(table: Any) -> Scores:
    """An Arrow table of scored rows, taken apart by its column `source`."""
    sources = np.asarray(table["source"].to_pylist())
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "source"}
    return {
        str(source): {name: values[sources == source] for name, values in columns.items()}
        for source in dict.fromkeys(sources.tolist())
    }


def figures_of(columns: Sequence[str]) -> list[str]:
    """Names of the figures that a table with these columns gives."""
    if "similarity" in columns:
        return ["spearman"]
    if "label" in columns:
        return ["v_measure"]
    return [name for name in columns if name != "source"]


def figure(scores: Scores, name: str, rows: dict[str, np.ndarray] | None = None) -> float:
    """A figure by name, of all rows or of some by source (with repeats).

    Raises:
        ValueError: the scores have no such figure.
    """
    statistic = _statistic(name)
    values = []
    for source, columns in scores.items():
        if name not in figures_of(list(columns)):
            raise ValueError(f"got figure {name!r}, these scores have {figures_of(list(columns))}; correct the claim")
        values.append(
            statistic(columns if rows is None else {key: column[rows[source]] for key, column in columns.items()})
        )
    return float(np.mean(values))


def difference(above: Side, below: Side, seed: int, num_resamples: int) -> Difference:
    """First minus second, with a percentile interval: rows are resampled within each source, the same for both sides.

    Raises:
        ValueError: the sides were scored on other rows.
    """
    counts = _counts(above.scores)
    if counts != _counts(below.scores):
        raise ValueError(
            f"got {counts} and {_counts(below.scores)} rows, expected the same: score both on the same test"
        )
    resampled = [above.value(rows) - below.value(rows) for rows in _resamples(counts, seed, num_resamples)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Difference(above.value() - below.value(), float(low), float(high))


def overall(verdicts: Sequence[str]) -> str:
    """What the comparisons of a claim say together: it holds where all do, and not where one does not."""
    if DIFFERS in verdicts:
        return DIFFERS
    return UNRESOLVED if UNRESOLVED in verdicts else AGREES


def _counts(scores: Scores) -> dict[str, int]:
    return {source: len(next(iter(columns.values()))) for source, columns in scores.items()}


def _resamples(counts: dict[str, int], seed: int, num_resamples: int) -> Iterator[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    for _ in range(num_resamples):
        yield {source: generator.integers(count, size=count) for source, count in counts.items()}


def _statistic(name: str) -> Callable[[Columns], float]:
    if name == "spearman":
        return lambda columns: float(spearmanr(columns["similarity"], columns["score"]).statistic)
    if name == "v_measure":
        return lambda columns: float(
            np.mean([v_measure_score(columns["label"], columns[key]) for key in columns if key.startswith("cluster")])
        )
    return lambda columns: float(columns[name].mean())
