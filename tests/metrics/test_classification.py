import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stages.metrics.classification import accuracy


def test_accuracy_by_hand() -> None:
    # Mirrored, so the boundary is the sign of the first coordinate.
    train = np.array([[-2, 0], [-1, 1], [1, 1], [2, 0]])
    test = np.array([[-5, 2], [-0.1, 3], [0.1, -3], [4, 4]])
    rows = accuracy(train, ["no", "no", "yes", "yes"], test, ["no", "yes", "yes", "yes"])
    assert rows.tolist() == [1, 0, 1, 1]


def test_accuracy_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 50)
    embeddings = (np.eye(4, 8)[labels] + rng.normal(size=(200, 8))).astype(np.float16)
    train, test = embeddings[:120].astype(float), embeddings[120:].astype(float)
    expected = LogisticRegression().fit(train, labels[:120]).score(test, labels[120:])
    rows = accuracy(embeddings[:120], labels[:120], embeddings[120:], labels[120:])
    assert rows.shape == (80,)
    assert rows.mean() == pytest.approx(expected)
    assert 0.4 < expected < 0.9  # neither chance nor certainty: the comparison means something
