"""Classification.

Shapes: M training texts, n test texts, D embedding dim.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

# As MTEB's AbsTaskClassification.
MAX_ITERATIONS = 100


def accuracy(
    train_embeddings: NDArray[np.generic],
    train_labels: ArrayLike,
    test_embeddings: NDArray[np.generic],
    test_labels: ArrayLike,
) -> NDArray[np.float64]:
    """Whether a logistic regression on the training embeddings labels each test text rightly.

    The solver (L-BFGS) draws nothing at random, so there is no seed. MTEB fits on 8 texts per label, ten
    times over: for that, pass the rows drawn.

    Args:
        train_embeddings: [M, D].
        train_labels: [M].
        test_embeddings: [n, D].
        test_labels: [n].

    Returns:
        [n], 1.0 where right and 0.0 where wrong: the mean is the accuracy, and a bootstrap can pair the rows.
    """
    classifier = LogisticRegression(max_iter=MAX_ITERATIONS)
    classifier.fit(train_embeddings.astype(np.float64), train_labels)
    predicted = classifier.predict(test_embeddings.astype(np.float64))
    return np.asarray(predicted == np.asarray(test_labels), dtype=np.float64)
