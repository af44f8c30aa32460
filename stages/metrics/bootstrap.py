"""Bootstrap of a difference between two models on the same rows.

Shapes: n rows (queries, texts), R resamples.
"""

import numpy as np
from numpy.typing import NDArray


def paired_difference(
    a: NDArray[np.float64], b: NDArray[np.float64], seed: int, num_resamples: int = 2000
) -> tuple[float, float, float]:
    """How much better `a` is than `b`, with a 95 % percentile interval over resampled rows.

    Args:
        a: [n], one score per row.
        b: [n], the other model's scores of the same rows.
        seed: of the resampling.
        num_resamples: R; memory is 16 bytes x R x n.

    Returns:
        (mean, low, high) of mean(a - b).

    Raises:
        ValueError: if the shapes disagree.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"got {list(a.shape)} and {list(b.shape)} scores, expected the same [n]: score both models on the same rows"
        )
    differences = a - b
    rows = np.random.default_rng(seed).integers(len(differences), size=(num_resamples, len(differences)))
    low, high = np.percentile(differences[rows].mean(axis=1), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)
