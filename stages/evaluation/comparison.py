"""Contenders beside each other: figures with their mean over sources, and every difference with its interval."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stages.evaluation.tasks import Score
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Draws
from stages.metrics.row_outcomes import Sample, figure

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


def samples(by_contender: Mapping[str, BySource]) -> dict[str, dict[str, Sample]]:
    """The outcome on each row, by contender and source."""
    return {
        name: {source: score.sample for source, score in by_source.items()} for name, by_source in by_contender.items()
    }


def draws(
    by_contender: Mapping[str, Mapping[str, Sample]],
    seed: int,
    num_resamples: int,
    units: Mapping[str, np.ndarray] | None = None,
) -> dict[str, dict[str, Draws]]:
    """Figures of all contenders on the same resamples of each source, by contender and source.

    Args:
        units: by source, what its rows are drawn by (see `bootstrap.resample`); each row by itself where it has none.
    """
    found: dict[str, dict[str, Draws]] = {name: {} for name in by_contender}
    sources = dict.fromkeys(source for by_source in by_contender.values() for source in by_source)
    for source in sources:
        known = {name: by_source[source] for name, by_source in by_contender.items() if source in by_source}
        of_rows = (units or {}).get(source, np.arange(len(next(iter(known.values())))))
        resamples = bootstrap.resample(
            [one.on for one in known.values()], of_rows, [seed, zlib.crc32(source.encode())], num_resamples
        )
        for (name, sample), of_sample in zip(known.items(), resamples, strict=True):
            found[name][source] = Draws(figure(sample), of_sample)
    return found


def overall(by_source: Mapping[str, Draws], sources: Iterable[str] | None = None) -> Draws:
    """The mean over sources, or over those of them that are named."""
    return bootstrap.mean([by_source[source] for source in (by_source if sources is None else sources)])


def comparisons(of_contender: Mapping[str, Mapping[str, Draws]], ours: str) -> dict[str, Any]:
    """`over`: how much better ours is than each other one; `of_teacher`: what each keeps of the teacher's figure."""
    means = {name: overall(by_source) for name, by_source in of_contender.items()}
    return {
        "over": {
            name: bootstrap.difference(means[ours], other).as_dict() for name, other in means.items() if name != ours
        },
        "of_teacher": {
            name: bootstrap.ratio(one, means["teacher"]).as_dict() for name, one in means.items() if name != "teacher"
        },
    }
