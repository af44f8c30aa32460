"""What a model did with each row of a test set, and the figure that comes of it: on all rows, or on resamples of them.

The figure of all rows is what `stages.metrics` says of each metric; `on` computes the same with every row as often as a
resample drew it.

Shapes: n rows, B resamples, K starts of k-means, G groups of rows.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from stages.metrics.bootstrap import Counts


class Sample(Protocol):
    """A model's outcome on each row of a test set."""

    def __len__(self) -> int:
        """Rows, n."""

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """The figure of each resample [B] of which `counts` [B, n] says how often it drew each row."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The outcome by name, to be stored."""


@dataclass(frozen=True)
class Mean:
    """A score of each row [n], whose mean is the figure: nDCG of queries, whether a label is right."""

    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Means [B]."""
        return np.asarray(counts @ self.scores / counts.sum(axis=1))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """`scores`."""
        return {"scores": self.scores}


@dataclass(frozen=True)
class RankCorrelation:
    """A model's similarity of each pair [n] and people's score of it [n]; Spearman's correlation is the figure."""

    similarities: NDArray[np.float64]
    people: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.people)

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Spearman's correlations [B]: Pearson's of the ranks, where a row drawn twice is two tied rows."""
        left, right = (ranks(values, counts) for values in (self.similarities, self.people))
        total = counts.sum(axis=1)
        centre = total * ((total + 1) / 2) ** 2  # ranks of N rows have the mean (N + 1) / 2
        covariance, of_left, of_right = (
            np.einsum("bn,bn,bn->b", counts, one, other) - centre
            for one, other in ((left, right), (left, left), (right, right))
        )
        with np.errstate(invalid="ignore"):  # NaN where all drawn rows are equal, as scipy has it
            return np.asarray(covariance / np.sqrt(of_left * of_right))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """`similarities` and `people`."""
        return {"similarities": self.similarities, "people": self.people}


@dataclass(frozen=True)
class Partition:
    """The cluster of each text for each start of k-means [K, n], and its label [n]; the mean V-measure is the figure.

    Texts are resampled; the clusters stay those of all texts, and what other starts would give is in the mean alone.
    """

    clusters: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def on(self, counts: Counts) -> NDArray[np.float64]:
        """Means over starts of V-measures [B]."""
        return np.asarray(np.mean([v_measures(clusters, self.labels, counts) for clusters in self.clusters], axis=0))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """`clusters` and `labels`."""
        return {"clusters": self.clusters, "labels": self.labels}


def figure(sample: Sample) -> float:
    """The figure of all rows, each once."""
    return float(sample.on(np.ones((1, len(sample))))[0])


def ranks(values: NDArray[np.generic], counts: Counts) -> NDArray[np.float64]:
    """The rank of each row [B, n] among the rows that a resample drew, the mean rank where values tie."""
    order = np.argsort(values, kind="stable")
    _, first, group, size = np.unique(values[order], return_index=True, return_inverse=True, return_counts=True)
    group_of = np.empty_like(group)
    group_of[order] = group
    drawn_until = np.zeros((len(counts), len(values) + 1))
    np.cumsum(counts[:, order], axis=1, out=drawn_until[:, 1:])
    of_value = drawn_until[:, first] + drawn_until[:, first + size]
    return np.asarray(((of_value + 1) / 2)[:, group_of])


def v_measures(clusters: NDArray[np.generic], labels: NDArray[np.generic], counts: Counts) -> NDArray[np.float64]:
    """V-measures [B]: twice the mutual information of clusters and labels over the sum of their entropies."""
    cells, cell_of = np.unique(np.stack([clusters, labels]), axis=1, return_inverse=True)
    joint = _members(cell_of.ravel()) @ counts.T / counts.sum(axis=1)
    of_clusters, of_labels = (_entropies(_members(groups) @ joint) for groups in cells)
    both = of_clusters + of_labels
    with np.errstate(invalid="ignore"):
        return np.where(both > 0, 2 * (both - _entropies(joint)) / both, 1.0)


def _members(groups: NDArray[np.generic]) -> csr_array:
    """Which of n items belong to which of G groups: [G, n]."""
    group = np.unique(groups, return_inverse=True)[1].ravel()
    items = np.arange(len(group))
    return csr_array((np.ones(len(group)), (group, items)))


def _entropies(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropies [B] of shares [G, B], of which every column adds up to 1."""
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=0))
