"""Clustering.

Shapes: M texts, D embedding dim.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import v_measure_score
from sklearn.preprocessing import normalize

# The best of ten starts: scikit-learn's default before 1.4.
NUM_STARTS = 10


def v_measure(embeddings: NDArray[np.generic], labels: ArrayLike, seed: int) -> float:
    """V-measure of k-means clusters against labels, with as many clusters as there are labels.

    MTEB fits in mini-batches; sets of a few thousand texts do not need them.

    Args:
        embeddings: [M, D], of any length: normalised here.
        labels: [M], of any hashable kind.
        seed: of k-means' starts.

    Returns:
        The harmonic mean of homogeneity and completeness, in [0, 1].
    """
    kmeans = KMeans(n_clusters=len(np.unique(labels)), n_init=NUM_STARTS, random_state=seed)
    clusters = kmeans.fit_predict(normalize(embeddings.astype(np.float64)))
    return float(v_measure_score(labels, clusters))
