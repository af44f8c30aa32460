import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from stages.metrics.bootstrap import paired_difference


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    hardness = rng.normal(scale=5, size=400)  # shared by both models: pairing removes it
    return hardness + rng.normal(loc=0.3, size=400), hardness + rng.normal(size=400)


def test_paired_difference_by_hand() -> None:
    # Every difference is 0.25, so is every resample's mean.
    assert paired_difference(np.array([0.75, 1, 0.5]), np.array([0.5, 0.75, 0.25]), 0) == (0.25, 0.25, 0.25)


def test_paired_difference_of_two_rows() -> None:
    # Of two rows with differences 0 and 1, a resample's mean is 0, 1/2 or 1 with odds 1:2:1.
    assert paired_difference(np.array([0.0, 1]), np.zeros(2), 0) == (0.5, 0, 1)


def test_paired_difference_equals_scipy(scores: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = scores
    mean, low, high = paired_difference(a, b, seed=0, num_resamples=5000)
    expected = bootstrap((a - b,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert mean == pytest.approx((a - b).mean())
    assert (low, high) == pytest.approx(expected, abs=0.01)
    half = norm.ppf(0.975) * (a - b).std() / np.sqrt(len(a))
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)


def test_paired_difference_is_antisymmetric_and_repeats(scores: tuple[np.ndarray, np.ndarray]) -> None:
    mean, low, high = paired_difference(*scores, seed=3)
    assert paired_difference(*scores, seed=3) == (mean, low, high)
    assert paired_difference(scores[1], scores[0], seed=3) == pytest.approx((-mean, -high, -low))


def test_paired_difference_refuses_shapes() -> None:
    with pytest.raises(ValueError, match=r"got \[3\] and \[1\] scores.*same rows"):
        paired_difference(np.ones(3), np.ones(1), 0)
