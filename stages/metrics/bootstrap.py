"""Paired bootstrap: estimates how a figure would vary over other test sets of the same kind.

Units of rows are resampled, since rows of one entity say less than as many rows of different entities; a row of two
units occurs as often as the product of both. All models are scored on the same resamples, so that the difficulty of a
test set cancels out of a difference. A resample is a count for each row, which lets a statistic that takes weights be
computed on many resamples at once.

Shapes: n rows, U units of a row, G units in all, R resamples, B resamples in a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
# How often each row was drawn [B, n] -> the figure of each resample [B].
Statistic = Callable[[Counts], NDArray[np.float64]]
# Counts held in memory at the same time: 32 MiB of float64.
BLOCK_SIZE = 2**22


@dataclass(frozen=True)
class Draws:
    """A model's figure on all rows, and on each resample [R]."""

    figure: float
    resamples: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % percentile interval, and p of the two-sided test against no effect."""

    figure: float
    low: float
    high: float
    p: float

    def as_dict(self) -> dict[str, float]:
        """Give the fields by name, for a JSON file."""
        return asdict(self)


def resample(
    statistics: Sequence[Statistic], units: NDArray[np.int64], seed: int | Sequence[int], num_resamples: int
) -> NDArray[np.float64]:
    """Compute each statistic on the same resamples of n rows: [len(statistics), R].

    >>> resample([lambda counts: counts.sum(axis=1)], np.arange(3), seed=0, num_resamples=2)
    array([[3., 3.]])

    Args:
        units: units of each row, numbered from 0: [n], or [n, U] where a row has several.
        seed: equal seeds draw equal resamples, in another process too.
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
        unit_counts = np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units)
        counts = np.prod([unit_counts[:, column] for column in units.T], axis=0, dtype=np.float64)
        for number, statistic in enumerate(statistics):
            found[number, start : start + size] = statistic(counts)
    return found


def mean(parts: Sequence[Draws]) -> Draws:
    """Average over sources, each resampled on its own."""
    return Draws(float(np.mean([part.figure for part in parts])), np.mean([part.resamples for part in parts], axis=0))


def difference(ours: Draws, other: Draws) -> Estimate:
    """Estimate `ours` minus `other`; p is of no difference.

    >>> round(difference(Draws(0.8, np.array([0.7, 0.9])), Draws(0.5, np.array([0.4, 0.6]))).low, 2)
    0.3
    """
    return _estimate(ours.figure - other.figure, ours.resamples - other.resamples, no_effect=0.0)


def ratio(ours: Draws, other: Draws) -> Estimate:
    """Estimate `ours` as a share of `other`, NaN where that is not above 0; p is of the two being equal."""
    share = ours.figure / other.figure if other.figure > 0 else np.nan
    return _estimate(share, ours.resamples / np.where(other.resamples > 0, other.resamples, np.nan), no_effect=1.0)


def _estimate(figure: float, resamples: NDArray[np.float64], no_effect: float) -> Estimate:
    """Take percentiles, and p from the resamples beyond `no_effect` (counted plus 1, so that p is never 0).

    A resample without a figure, such as one that drew a single label, may lie anywhere: it counts as the lowest, the
    highest and on both sides of `no_effect`. NaN is an end of the interval that depends on it, and all of no figure.
    """
    if np.isnan(figure):
        return Estimate(np.nan, np.nan, np.nan, np.nan)
    unknown = np.isnan(resamples)
    with np.errstate(invalid="ignore"):  # between an unknown end and a known one
        ends = [np.percentile(np.where(unknown, end, resamples), q) for end, q in ((-np.inf, 2.5), (np.inf, 97.5))]
    low, high = (end if np.isfinite(end) else np.nan for end in ends)
    at_most, at_least = ((unknown | beyond).sum() + 1 for beyond in (resamples <= no_effect, resamples >= no_effect))
    p = min(1.0, 2 * min(at_most, at_least) / (len(resamples) + 1))
    return Estimate(float(figure), float(low), float(high), float(p))
