import numpy as np
import pytest
from scipy.stats import rankdata
from sentence_transformers.util import pairwise_cos_sim

from stages.metrics.similarity import spearman


def test_spearman_by_hand() -> None:
    left = np.array([[1, 0], [2, 0], [0, 3], [1, 1]])
    right = np.array([[1, 0], [0, 5], [3, 4], [1, 0]])  # cosines 1, 0, .8, .707: ranks 4, 1, 3, 2
    scores = np.array([5, 0, 2, 3])  # ranks 4, 1, 2, 3
    expected = 1 - 6 * (0 + 0 + 1 + 1) / (4 * (4**2 - 1))
    assert spearman(left, right, scores) == pytest.approx(expected)


def test_spearman_with_ties_is_pearson_of_mean_ranks() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 50, 8))
    scores = rng.integers(6, size=50) / 5
    cosines = pairwise_cos_sim(left, right).numpy()
    expected = np.corrcoef(rankdata(cosines), rankdata(scores))[0, 1]
    assert spearman(left, right, scores) == pytest.approx(expected)


def test_spearman_ignores_lengths_and_storage() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(-100, 100, size=(2, 50, 8)).astype(np.int8)
    scores = rng.random(50)
    lengths = rng.uniform(1, 9, size=(50, 1))
    assert spearman(left * lengths, right, scores) == pytest.approx(spearman(left, right, scores))
