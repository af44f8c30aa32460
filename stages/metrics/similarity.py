"""Semantic textual similarity.

Shapes: P pairs, D embedding dimension.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.preprocessing import normalize


def cosines(left: NDArray[np.generic], right: NDArray[np.generic]) -> NDArray[np.float64]:
    """Cosine of each pair [P] of vectors [P, D] of any length."""
    return np.asarray((normalize(left.astype(np.float64)) * normalize(right.astype(np.float64))).sum(axis=1))


def spearman(left: NDArray[np.generic], right: NDArray[np.generic], scores: NDArray[np.generic]) -> float:
    """Spearman's rank correlation of the pairs' cosines with human scores [P], in [-1, 1].

    NaN where the cosines or the scores are all equal.

    >>> round(spearman(np.eye(2), np.array([[1, 0], [1, 1]]), scores=np.array([5, 1])), 6)
    1.0
    """
    return float(spearmanr(cosines(left, right), scores).statistic)
