"""Outcomes of a model on each row of a test set, and the figure that they give on all rows or on resamples.

The figure on all rows equals the one of the metric's own module; `on` computes it with each row as often as a resample
drew it.

Shapes: n rows, B resamples, K starts of k-means, G groups of rows.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from stages.metrics.bootstrap import Counts

# Share of a sum below which a difference is its rounding.
ROUNDING = 1e-12


class RowOutcomes(Protocol):
    """A model's outcome on each row of a test set; the fields of a class are the arrays that are stored."""

    def __len__(self) -> int:
        """Count the rows, n."""

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Compute the figure of each resample [B], given how often it drew each row [B, n]."""


@dataclass(frozen=True)
class Mean:
    """A score for each row [n], whose mean is the figure: nDCG of a query, whether a label is right."""

    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Compute means [B]."""
        return np.asarray(counts @ self.scores / counts.sum(axis=1))


@dataclass(frozen=True)
class RankCorrelation:
    """The similarity that a model gives each pair [n] and people's score of it [n]; the figure is Spearman's rho."""

    similarities: NDArray[np.float64]
    people: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.people)

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Compute Spearman's correlations [B]: Pearson's of the ranks, where a row drawn twice is two tied rows."""
        left, right = (ranks(values, counts) for values in (self.similarities, self.people))
        total = counts.sum(axis=1)
        centre = total * ((total + 1) / 2) ** 2  # ranks of N rows have the mean (N + 1) / 2
        covariance, left_variance, right_variance = (
            np.einsum("bn,bn,bn->b", counts, first, second) - centre
            for first, second in ((left, right), (left, left), (right, right))
        )
        # NaN where all drawn rows are equal, as scipy has it; rounding may leave a little of their variance.
        vary = np.minimum(left_variance, right_variance) > ROUNDING * centre
        product = np.where(vary, left_variance * right_variance, np.nan)
        return np.asarray(covariance / np.sqrt(product))


@dataclass(frozen=True)
class Partition:
    """The cluster of each text in each start of k-means [K, n], and its label [n]; the figure is the mean V-measure.

    Texts are resampled, clusters are not drawn again: the spread over starts shows in the mean alone.
    """

    clusters: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Compute V-measures [B], the mean over starts."""
        return np.asarray(np.mean([v_measures(clusters, self.labels, counts) for clusters in self.clusters], axis=0))


def figure(outcomes: RowOutcomes) -> float:
    """Compute the figure on all rows, each counted once.

    >>> figure(Mean(np.array([1.0, 0.5, 0.0])))
    0.5
    """
    return float(outcomes.on(np.ones((1, len(outcomes))))[0])


def ranks(values: NDArray[np.generic], counts: Counts) -> NDArray[np.float64]:
    """Rank each row [B, n] among the rows that a resample drew, with the mean rank where values tie."""
    order = np.argsort(values, kind="stable")
    _, first, group, size = np.unique(values[order], return_index=True, return_inverse=True, return_counts=True)
    group_of_row = np.empty_like(group)
    group_of_row[order] = group
    drawn_before = np.zeros((len(counts), len(values) + 1))
    np.cumsum(counts[:, order], axis=1, out=drawn_before[:, 1:])
    of_group = drawn_before[:, first] + drawn_before[:, first + size]
    return np.asarray(((of_group + 1) / 2)[:, group_of_row])


def v_measures(clusters: NDArray[np.generic], labels: NDArray[np.generic], counts: Counts) -> NDArray[np.float64]:
    """Compute V-measures [B]: twice the mutual information of clusters and labels over the sum of their entropies.

    NaN where only rows of one label were drawn, which any clusters would fit.
    """
    cells, cell_of_row = np.unique(np.stack([clusters, labels]), axis=1, return_inverse=True)
    joint = _membership(cell_of_row.ravel()) @ counts.T / counts.sum(axis=1)
    cluster_entropies, label_entropies = (_entropies(_membership(groups) @ joint) for groups in cells)
    both = cluster_entropies + label_entropies
    return np.asarray(2 * (both - _entropies(joint)) / np.where(label_entropies > ROUNDING, both, np.nan))


def _membership(groups: NDArray[np.generic]) -> csr_array:
    """Indicator matrix [G, n] of the group of each item [n]."""
    group = np.unique(groups, return_inverse=True)[1].ravel()
    return csr_array((np.ones(len(group)), (group, np.arange(len(group)))))


def _entropies(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropies [B] of shares [G, B], each column of which adds up to 1."""
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=0))
