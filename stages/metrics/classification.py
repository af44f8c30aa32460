"""Classification.

Shapes: M training texts, n test texts, D embedding dimension.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

# As in MTEB's AbsTaskClassification.
MAX_ITERATIONS = 100


def accuracy(
    train_embeddings: NDArray[np.generic],
    train_labels: ArrayLike,
    test_embeddings: NDArray[np.generic],
    test_labels: ArrayLike,
) -> NDArray[np.float64]:
    """Tell which test texts a logistic regression on the training embeddings [M, D] labels rightly.

    The solver (L-BFGS) draws nothing at random, so there is no seed. MTEB instead fits ten times on 8 texts per label.

    >>> accuracy(np.array([[1.0], [-1.0]]), ["oak", "malt"], np.array([[2.0], [3.0]]), ["oak", "malt"])
    array([1., 0.])

    Returns:
        [n], 1.0 where right and 0.0 where wrong: the mean is the accuracy, and a bootstrap can resample the rows. NaN
        where the training texts have a single label, from which nothing is fitted.
    """
    if len(np.unique(train_labels)) < 2:
        return np.full(len(test_embeddings), np.nan)
    classifier = LogisticRegression(max_iter=MAX_ITERATIONS)
    classifier.fit(train_embeddings.astype(np.float64), train_labels)
    predicted = classifier.predict(test_embeddings.astype(np.float64))
    return np.asarray(predicted == np.asarray(test_labels), dtype=np.float64)
