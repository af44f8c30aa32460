import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from stages.metrics.bootstrap import Draws, Statistic, difference, mean, ratio, resample
from stages.metrics.row_outcomes import Mean


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    hardness = rng.normal(loc=20, scale=5, size=400)  # shared by both models: pairing removes it
    return hardness + rng.normal(loc=0.3, size=400), hardness + rng.normal(size=400)


def draws(*scores: np.ndarray, seed: int = 0, num_resamples: int = 5000) -> list[Draws]:
    statistics: list[Statistic] = [Mean(one).on for one in scores]
    found = resample(statistics, np.arange(len(scores[0])), seed, num_resamples)
    return [Draws(float(one.mean()), resamples) for one, resamples in zip(scores, found, strict=True)]


def test_a_constant_difference_by_hand() -> None:
    # Every difference is 0.25, so is every resample's mean; of 1000 resamples none is on the far side of 0.
    ours, other = draws(np.array([0.75, 1, 0.5]), np.array([0.5, 0.75, 0.25]), num_resamples=1000)
    found = difference(ours, other)
    assert (found.figure, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p == pytest.approx(2 / 1001)


def test_a_difference_of_two_rows_by_hand() -> None:
    # Of two rows with differences 0 and 1, a resample's mean is 0, 1/2 or 1 with odds 1:2:1.
    found = difference(*draws(np.array([0.0, 1]), np.zeros(2)))
    assert (found.figure, found.low, found.high) == (0.5, 0, 1)
    assert found.p == pytest.approx(2 * 0.25, abs=0.03)


def test_a_difference_is_scipys(scores: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = scores
    found = difference(*draws(a, b))
    expected = bootstrap((a - b,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert found.figure == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)
    half = norm.ppf(0.975) * (a - b).std() / np.sqrt(len(a))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    # The two-sided p of a mean, by the normal distribution.
    weaker = difference(*draws(a - 0.23, b))
    z = (a - 0.23 - b).mean() / ((a - b).std() / np.sqrt(len(a)))
    assert weaker.p == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)


def test_a_ratio_is_scipys(scores: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = scores
    found = ratio(*draws(a, b))
    expected = bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        n_resamples=5000,
        paired=True,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert found.figure == pytest.approx(a.mean() / b.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=5e-4)


def test_what_is_undefined_stays_undefined_and_proves_nothing() -> None:
    nan = np.nan
    some, few = (np.where(np.arange(100) < unknown, nan, 0.5) for unknown in (10, 1))
    none = difference(Draws(nan, some), Draws(0.1, np.full(100, 0.1)))
    assert np.isnan([none.figure, none.low, none.high, none.p]).all()
    # A tenth of the resamples may lie anywhere, so both ends are unknown; one in a hundred is beyond neither end.
    wide = difference(Draws(0.5, some), Draws(0.1, np.full(100, 0.1)))
    assert wide.figure == pytest.approx(0.4) and np.isnan([wide.low, wide.high]).all()
    assert wide.p == pytest.approx(2 * 11 / 101)
    known = difference(Draws(0.5, few), Draws(0.1, np.full(100, 0.1)))
    assert (known.low, known.high) == pytest.approx((0.4, 0.4))


@pytest.mark.parametrize("teacher", [0.0, -0.1, np.nan])
def test_nothing_is_a_share_of_a_score_that_is_not_above_zero(teacher: float) -> None:
    found = ratio(Draws(0.3, np.full(10, 0.3)), Draws(teacher, np.full(10, teacher)))
    assert np.isnan([found.figure, found.low, found.high, found.p]).all()


def test_rows_are_paired(scores: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = scores
    paired = difference(*draws(a, b))
    unpaired = difference(draws(a)[0], draws(b, seed=1)[0])
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 3
    equal = difference(*draws(a, a))
    assert (equal.figure, equal.low, equal.high, equal.p) == (0, 0, 0, 1)


def test_rows_of_a_unit_are_drawn_together() -> None:
    # Rows 0 and 1 are of one unit, row 2 of another: a resample's mean is 0, 2/3 or 1.
    (found,) = resample([Mean(np.array([1.0, 1, 0])).on], np.array([0, 0, 1]), 0, 4000)
    assert set(np.round(found, 4)) == {0.0, 0.6667, 1.0}
    assert (found == 0).mean() == pytest.approx(0.25, abs=0.03)
    # Ten equal copies of each row say no more than the rows.
    rows = np.random.default_rng(0).normal(size=50)
    alone, copied = (
        resample([Mean(np.repeat(rows, times)).on], np.repeat(np.arange(50), times), 0, 500) for times in (1, 10)
    )
    assert copied == pytest.approx(alone)


def test_a_row_of_two_units_is_there_as_often_as_both() -> None:
    # Pairs (0, 1), (0, 2), (1, 2): of three documents one, two or none are missing.
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    counts: list[np.ndarray] = []

    def seen(of_rows: np.ndarray) -> np.ndarray:
        counts.append(of_rows)
        return of_rows.sum(axis=1)

    resample([seen], pairs, 0, 200)
    assert {tuple(sorted(one)) for one in np.concatenate(counts).tolist()} == {(1, 1, 1), (0, 0, 2), (0, 0, 0)}


def test_each_source_counts_the_same() -> None:
    few, many = draws(np.ones(3))[0], draws(np.zeros(300))[0]
    together = mean([few, many])
    assert together.figure == 0.5
    assert together.resamples == pytest.approx(np.full(5000, 0.5))


def test_seeds_repeat_and_blocks_do_not_show(
    scores: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = scores
    whole = draws(a, seed=4, num_resamples=50)[0].resamples
    assert (draws(a, seed=4, num_resamples=50)[0].resamples == whole).all()
    assert (draws(a, seed=5, num_resamples=50)[0].resamples != whole).any()
    monkeypatch.setattr("stages.metrics.bootstrap.BLOCK_SIZE", 7 * len(a))
    assert draws(a, seed=4, num_resamples=50)[0].resamples == pytest.approx(whole)
