"""Scores of contenders beside each other: figures and their mean over sources, what an adapter adds to its base."""

from collections.abc import Mapping

import numpy as np

from stages.evaluation.tasks import Score
from stages.metrics.bootstrap import paired_difference

BySource = Mapping[str, Score]


def figures(by_contender: Mapping[str, BySource]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by contender and source, with their mean over sources."""
    table = {}
    for name, by_source in by_contender.items():
        of_source = {source: score.figures for source, score in by_source.items()}
        columns = next(iter(of_source.values()))
        mean = {column: float(np.mean([one[column] for one in of_source.values()])) for column in columns}
        table[name] = {**of_source, "mean": mean}
    return table


def over_base(adapter: BySource, base: BySource, figure: str, seed: int, num_resamples: int) -> dict[str, float | None]:
    """Adapter minus base, with a paired bootstrap interval where the metric is a mean over rows.

    Args:
        figure: name of the task's main figure.
    """
    differences = [adapter[one].figures[figure] - base[one].figures[figure] for one in adapter]
    rows = ((adapter[one].rows, base[one].rows) for one in adapter)
    pairs = [(left, right) for left, right in rows if left is not None and right is not None]
    low = high = None
    if len(pairs) == len(adapter):
        # Rows are weighted so that each source counts the same, as in the mean over sources.
        weights = [sum(len(left) for left, _ in pairs) / len(pairs) / len(left) for left, _ in pairs]
        left, right = (
            np.concatenate([one[side] * w for one, w in zip(pairs, weights, strict=True)]) for side in (0, 1)
        )
        _, low, high = paired_difference(left, right, seed, num_resamples)
    return {"difference": float(np.mean(differences)), "low": low, "high": high}
