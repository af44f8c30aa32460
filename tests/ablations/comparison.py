"""Figures of scored rows, their differences with intervals, and the verdicts on claims.

A figure is the mean over sources of a statistic of their rows: the mean of a column for `ndcg...` and `accuracy`,
Spearman's correlation for `spearman`, the mean over k-means starts for `v_measure`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from stages.evaluation.comparison import draws
from stages.evaluation.comparison import overall as mean_of_sources
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Draws
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, RowOutcomes
from stages.metrics.row_outcomes import figure as figure_of

UNITS = "units"  # the column with the units by which a bootstrap draws rows
Columns = dict[str, np.ndarray]  # column -> a value for each row; units as in `bootstrap.resample`
Scores = dict[str, Columns]  # by source

AGREES, DIFFERS, UNRESOLVED = "agrees", "does not agree", "unresolved"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a figure of a variant's scores, or its difference from another of these scores."""

    scores: Scores
    figure: str
    minus: str | None

    def value(self) -> float:
        """Compute the figure on all rows."""
        value = figure(self.scores, self.figure)
        return value if self.minus is None else value - figure(self.scores, self.minus)

    def draws(self, seed: int, num_resamples: int) -> Draws:
        """Compute the figure on all rows and on resamples of the test sets' entities."""
        names = [self.figure, *([] if self.minus is None else [self.minus])]
        units = {source: columns[UNITS] for source, columns in self.scores.items()}
        found = draws({name: outcomes(self.scores, name) for name in names}, seed, num_resamples, units)
        whole, *less = (mean_of_sources(found[name]) for name in names)
        return Draws(self.value(), whole.resamples - less[0].resamples) if less else whole


@dataclass(frozen=True)
class Difference:
    """How far one side is above the other, with the 95 % interval over resampled entities."""

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
    """Split an Arrow table of scored rows by its column `source`."""
    parts = {source: table.filter(pc.field("source") == source) for source in table["source"].unique().to_pylist()}
    return {
        source: {name: np.asarray(part[name].to_pylist()) for name in part.column_names if name != "source"}
        for source, part in parts.items()
    }


def figures_of(columns: Sequence[str]) -> list[str]:
    """Name the figures that a table with these columns gives."""
    if "similarity" in columns:
        return ["spearman"]
    if "label" in columns:
        return ["v_measure"]
    return [name for name in columns if name not in ("source", UNITS)]


def figure(scores: Scores, name: str) -> float:
    """Compute a figure by name, the mean over sources."""
    return float(np.mean([figure_of(rows) for rows in outcomes(scores, name).values()]))


def outcomes(scores: Scores, name: str) -> dict[str, RowOutcomes]:
    """Collect the row outcomes that a figure is computed from, by source.

    Raises:
        ValueError: the scores have no such figure.
    """
    for columns in scores.values():
        if name not in figures_of(list(columns)):
            raise ValueError(f"got figure {name!r}, these scores have {figures_of(list(columns))}; correct the claim")
    return {source: _outcomes(name, columns) for source, columns in scores.items()}


def difference(above: Side, below: Side, seed: int, num_resamples: int) -> Difference:
    """Subtract `below` from `above`, with a percentile interval over the same resampled entities for both.

    Raises:
        ValueError: the sides were scored on different rows.
    """
    counts = _counts(above.scores)
    if counts != _counts(below.scores):
        raise ValueError(
            f"got {counts} and {_counts(below.scores)} rows, expected the same: score both on the same test"
        )
    found = bootstrap.difference(*(side.draws(seed, num_resamples) for side in (above, below)))
    return Difference(found.figure, found.low, found.high)


def overall(verdicts: Sequence[str]) -> str:
    """Combine the verdicts of a claim's comparisons: it holds where all agree, and does not where any disagrees."""
    if DIFFERS in verdicts:
        return DIFFERS
    return UNRESOLVED if UNRESOLVED in verdicts else AGREES


def _counts(scores: Scores) -> dict[str, int]:
    return {source: len(next(iter(columns.values()))) for source, columns in scores.items()}


def _outcomes(name: str, columns: Mapping[str, np.ndarray]) -> RowOutcomes:
    if name == "spearman":
        return RankCorrelation(columns["similarity"], columns["score"])
    if name == "v_measure":
        clusters = [columns[key] for key in columns if key.startswith("cluster")]
        return Partition(np.stack(clusters), columns["label"])
    return Mean(columns[name].astype(np.float64))
