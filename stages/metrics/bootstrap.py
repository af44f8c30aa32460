"""Paired bootstrap: what a figure would have been on other test sets like this one.

Units of rows are resampled, as rows of one entity or document say less than as many of different ones; a row of two
units is there as often as both are. Every model is scored on the same resamples: whatever makes a test set hard for all
of them cancels out of a difference. A resample is a count for each row, so that any figure which can weigh its rows is
computed on many resamples at once.

Shapes: n rows, U units of a row, G units in all, R resamples, B of them in a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
# How often each row was drawn [B, n] -> the figure of each resample [B].
Statistic = Callable[[Counts], NDArray[np.float64]]
# Counts held at once: 32 MiB of float64.
BLOCK_SIZE = 2**22


@dataclass(frozen=True)
class Draws:
    """A model's figure, and what it was on each resample [R]."""

    figure: float
    resamples: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % percentile interval, and p of the two-sided test that nothing lies behind it."""

    figure: float
    low: float
    high: float
    p: float

    def as_dict(self) -> dict[str, float]:
        """The same by name, for a JSON file."""
        return asdict(self)


def resample(
    statistics: Sequence[Statistic], units: NDArray[np.int64], seed: int | Sequence[int], num_resamples: int
) -> NDArray[np.float64]:
    """Each statistic on the same resamples of n rows: [len(statistics), R].

    Args:
        units: each row's, numbered from 0: [n], or [n, U] where a row has several.
        seed: equal seeds draw equal resamples, also in another run.
        num_resamples: R.
    """
    generator = np.random.default_rng(seed)
    found = np.empty((len(statistics), num_resamples))
    units = units.reshape(len(units), -1)
    num_units = int(units.max()) + 1
    block = max(1, BLOCK_SIZE // max(len(units), num_units))
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = generator.integers(num_units, size=(size, num_units)) + np.arange(size)[:, None] * num_units
        of_units = np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units)
        counts = np.prod([of_units[:, column] for column in units.T], axis=0, dtype=np.float64)
        for number, statistic in enumerate(statistics):
            found[number, start : start + size] = statistic(counts)
    return found


def mean(parts: Sequence[Draws]) -> Draws:
    """The mean over sources, each with rows and resamples of its own."""
    return Draws(float(np.mean([part.figure for part in parts])), np.mean([part.resamples for part in parts], axis=0))


def difference(ours: Draws, other: Draws) -> Estimate:
    """How much better `ours` is than `other`; p is of no difference."""
    return _estimate(ours.figure - other.figure, ours.resamples - other.resamples, nothing=0.0)


def ratio(ours: Draws, other: Draws) -> Estimate:
    """`ours` as a share of `other`, not-a-number where both are 0; p is of the two being equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = float(np.divide(ours.figure, other.figure))
        return _estimate(share, ours.resamples / other.resamples, nothing=1.0)


def _estimate(figure: float, resamples: NDArray[np.float64], nothing: float) -> Estimate:
    """Percentiles, and p from the share of resamples on the far side of `nothing` (that share + 1, as no p is 0)."""
    low, high = np.percentile(resamples, [2.5, 97.5])
    at_most, at_least = ((resamples <= nothing).sum() + 1, (resamples >= nothing).sum() + 1)
    p = min(1.0, 2 * min(at_most, at_least) / (len(resamples) + 1))
    return Estimate(float(figure), float(low), float(high), float(p))
