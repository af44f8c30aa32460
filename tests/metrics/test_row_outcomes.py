import numpy as np
import pytest
from scipy.stats import bootstrap, rankdata, spearmanr
from sklearn.metrics import v_measure_score

from stages.metrics.bootstrap import Draws, difference, resample
from stages.metrics.classification import accuracy
from stages.metrics.clustering import v_measure
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, RowOutcomes, figure, ranks


def counts_of(rows: list[int], num_rows: int) -> np.ndarray:
    return np.bincount(rows, minlength=num_rows)[None].astype(float)


@pytest.fixture
def drawn() -> list[list[int]]:
    return np.random.default_rng(1).integers(30, size=(20, 30)).tolist()


def test_a_mean_weighs_rows_by_how_often_they_were_drawn() -> None:
    assert Mean(np.array([1.0, 0, 0.5])).on(np.array([[2.0, 1, 1]])).tolist() == [2.5 / 4]
    assert figure(Mean(np.array([1.0, 0]))) == 0.5


def test_ranks_are_those_of_the_drawn_rows_with_ties() -> None:
    # Drawn: 3, 3, 1, 5, 5 -> ranks 2.5, 2.5, 1, 4.5, 4.5; the value 4 is not drawn.
    values, counts = np.array([3, 1, 4, 5, 5]), np.array([[2.0, 1, 0, 1, 1]])
    assert ranks(values, counts)[0][[0, 1, 3, 4]].tolist() == [2.5, 1, 4.5, 4.5]
    assert ranks(values, np.ones((1, 5)))[0].tolist() == rankdata(values).tolist()


def test_rank_correlation_is_scipys_on_every_resample(drawn: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    similarities, people = rng.normal(size=30), rng.integers(5, size=30).astype(float)
    outcomes = RankCorrelation(similarities, people)
    found = outcomes.on(np.concatenate([counts_of(rows, 30) for rows in drawn]))
    expected = [spearmanr(similarities[rows], people[rows]).statistic for rows in drawn]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert figure(outcomes) == pytest.approx(spearmanr(similarities, people).statistic)
    assert np.isnan(figure(RankCorrelation(np.ones(3), np.arange(3.0))))


def test_v_measure_is_scikit_learns_on_every_resample(drawn: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(4, size=30), rng.integers(5, size=(3, 30))
    clusters[0, :20] = labels[:20]
    outcomes = Partition(clusters, labels)
    found = outcomes.on(np.concatenate([counts_of(rows, 30) for rows in drawn]))
    expected = [np.mean([v_measure_score(labels[rows], one[rows]) for one in clusters]) for rows in drawn]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [([0, 0, 1, 1], [1, 1, 0, 0]), ([0, 1, 2], [0, 0, 0]), ([0, 1], [0, 0])],
)
def test_v_measure_at_its_ends(labels: list[int], clusters: list[int]) -> None:
    found = figure(Partition(np.array([clusters]), np.array(labels)))
    assert found == pytest.approx(v_measure_score(labels, clusters))


@pytest.mark.parametrize("clusters", [[0, 0, 0], [0, 1, 2]])
def test_figures_without_an_order_or_a_second_label_are_undefined(clusters: list[int]) -> None:
    assert np.isnan(figure(Partition(np.array([clusters]), np.zeros(3, dtype=np.int64))))
    assert np.isnan(v_measure(np.eye(3), ["oak"] * 3, seed=0))
    assert np.isnan(accuracy(np.eye(3), ["oak"] * 3, np.eye(3), ["oak", "malt", "oak"])).all()
    constant = RankCorrelation(np.full(1000, 0.1), np.arange(1000.0))
    assert np.isnan(constant.on(np.random.default_rng(0).integers(3, size=(20, 1000)).astype(float))).all()


def test_the_interval_of_a_difference_of_rank_correlations_is_scipys() -> None:
    rng = np.random.default_rng(3)
    people = rng.normal(size=120)
    ours, other = people + rng.normal(size=120), people + 1.5 * rng.normal(size=120)
    models: list[RowOutcomes] = [RankCorrelation(one, people) for one in (ours, other)]
    found = resample([model.on for model in models], np.arange(120), 0, 4000)
    estimate = difference(*(Draws(figure(model), values) for model, values in zip(models, found, strict=True)))

    def difference_of(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> float:
        return float(spearmanr(a, y).statistic - spearmanr(b, y).statistic)

    expected = bootstrap(
        (ours, other, people),
        difference_of,
        n_resamples=300,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=0.03)
