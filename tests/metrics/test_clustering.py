import math

import numpy as np
import pytest

from stages.metrics.clustering import v_measure

DIRECTIONS = np.repeat(np.eye(3, 8), 10, axis=0)


@pytest.fixture
def embeddings() -> np.ndarray:
    return DIRECTIONS + 0.05 * np.random.default_rng(0).normal(size=DIRECTIONS.shape)


def test_v_measure_of_separate_topics_is_one(embeddings: np.ndarray) -> None:
    assert v_measure(embeddings, np.repeat(["art", "law", "war"], 10), seed=0) == pytest.approx(1)


def test_v_measure_by_hand() -> None:
    # Two clusters of two; "a" fills the first and half of the second, "b" the rest.
    embeddings = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]])
    labels = ["a", "a", "a", "b"]
    labels_entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    clusters_entropy = math.log(2)
    given_clusters = 0.5 * math.log(2)  # the second cluster is half a, half b
    mutual = labels_entropy - given_clusters
    homogeneity, completeness = mutual / labels_entropy, mutual / clusters_entropy
    expected = 2 * homogeneity * completeness / (homogeneity + completeness)
    assert v_measure(embeddings, labels, seed=0) == pytest.approx(expected)


def test_v_measure_ignores_lengths(embeddings: np.ndarray) -> None:
    lengths = np.random.default_rng(1).uniform(0.1, 10, size=(30, 1))
    assert v_measure(embeddings * lengths, np.repeat([0, 1, 2], 10), seed=0) == pytest.approx(1)


def test_v_measure_repeats() -> None:
    rng = np.random.default_rng(2)
    noise, labels = rng.normal(size=(40, 8)), rng.integers(4, size=40)
    assert v_measure(noise, labels, seed=0) == v_measure(noise, labels, seed=0)
