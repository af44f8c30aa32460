"""Models beside each other: their figures with the mean over sources, and their differences with intervals."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.evaluation.tasks import Score
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Draws
from stages.metrics.row_outcomes import RowOutcomes, figure

BySource = Mapping[str, Score]


def figures(scores: Mapping[str, BySource]) -> dict[str, dict[str, dict[str, float]]]:
    """Tabulate figures by model and source, with their mean over sources."""
    table = {}
    for model, by_source in scores.items():
        of_source = {source: score.figures for source, score in by_source.items()}
        columns = next(iter(of_source.values()))
        mean = {column: float(np.mean([row[column] for row in of_source.values()])) for column in columns}
        table[model] = {**of_source, "mean": mean}
    return table


def outcomes(scores: Mapping[str, BySource]) -> dict[str, dict[str, RowOutcomes]]:
    """Take the row outcomes out of scores, by model and source."""
    return {
        model: {source: score.outcomes for source, score in by_source.items()} for model, by_source in scores.items()
    }


def draws(
    outcomes: Mapping[str, Mapping[str, RowOutcomes]],
    seed: int,
    num_resamples: int,
    units: Mapping[str, np.ndarray] | None = None,
) -> dict[str, dict[str, Draws]]:
    """Resample each source and compute the figures of all models on the same resamples, by model and source.

    Args:
        units: units of a source's rows (see `bootstrap.resample`); each row on its own where a source has none.
    """
    found: dict[str, dict[str, Draws]] = {model: {} for model in outcomes}
    sources = dict.fromkeys(source for by_source in outcomes.values() for source in by_source)
    for source in sources:
        known = {model: by_source[source] for model, by_source in outcomes.items() if source in by_source}
        row_units = (units or {}).get(source, np.arange(len(next(iter(known.values())))))
        resamples = bootstrap.resample(
            [rows.on for rows in known.values()], row_units, [seed, zlib.crc32(source.encode())], num_resamples
        )
        for (model, rows), of_model in zip(known.items(), resamples, strict=True):
            found[model][source] = Draws(figure(rows), of_model)
    return found


def overall(by_source: Mapping[str, Draws]) -> Draws:
    """Average over sources."""
    return bootstrap.mean(list(by_source.values()))


def comparisons(draws: Mapping[str, Mapping[str, Draws]], ours: str) -> dict[str, Any]:
    """Compare models: `over`, ours minus each other one; `of_teacher`, each as a share of the teacher's figure."""
    means = {model: overall(by_source) for model, by_source in draws.items()}
    return {
        "over": {
            model: bootstrap.difference(means[ours], mean).as_dict() for model, mean in means.items() if model != ours
        },
        "of_teacher": {
            model: bootstrap.ratio(mean, means["teacher"]).as_dict()
            for model, mean in means.items()
            if model != "teacher"
        },
    }
