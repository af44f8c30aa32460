"""Semantic textual similarity.

Shapes: P pairs, D embedding dim.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.preprocessing import normalize


def spearman(left: NDArray[np.generic], right: NDArray[np.generic], scores: NDArray[np.generic]) -> float:
    """Spearman's rank correlation of the pairs' cosines with human scores.

    Args:
        left: [P, D], of any length.
        right: [P, D].
        scores: [P], in any unit.

    Returns:
        A correlation in [-1, 1]; NaN where the cosines or the scores are all equal.
    """
    cosines = (normalize(left.astype(np.float64)) * normalize(right.astype(np.float64))).sum(axis=1)
    return float(spearmanr(cosines, scores).statistic)
