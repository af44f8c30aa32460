import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import v_measure_score

from tests.ablations.comparison import (
    AGREES,
    DIFFERS,
    UNRESOLVED,
    Difference,
    Scores,
    Side,
    by_source,
    difference,
    figure,
    figures_of,
    overall,
)


def scores(shift: float, noise: int, rows: int = 300) -> Scores:
    """Two sources of unlike size; hardness is the same for every call, so that pairing removes it."""
    hardness = np.random.default_rng(0).normal(scale=5, size=rows)
    values = hardness + np.random.default_rng(noise).normal(loc=shift, size=rows)
    halves = {"one": values[: rows // 3], "two": values[rows // 3 :]}
    return {
        source: {"units": np.arange(len(one)), "ndcg": one, "ndcg-binary": one - 1} for source, one in halves.items()
    }


def test_a_table_is_taken_apart_by_source() -> None:
    table = pa.table({"source": ["b", "a", "b"], "units": [[3, 4], [0], [4, 5]], "ndcg": [1.0, 0.0, 0.5]})
    apart = by_source(table)
    assert list(apart) == ["b", "a"]
    np.testing.assert_array_equal(apart["b"]["ndcg"], [1.0, 0.5])
    np.testing.assert_array_equal(apart["b"]["units"], [[3, 4], [4, 5]])
    assert figure(apart, "ndcg") == pytest.approx((0.75 + 0) / 2)  # every source counts the same


def test_figures_are_those_of_the_tables_columns() -> None:
    assert figures_of(["source", "units", "ndcg", "ndcg@32"]) == ["ndcg", "ndcg@32"]
    assert figures_of(["source", "similarity", "score"]) == ["spearman"]
    assert figures_of(["source", "label", "cluster 1"]) == ["v_measure"]


def test_spearman_and_v_measure_are_means_over_sources_and_starts() -> None:
    generator = np.random.default_rng(1)
    cosines, people = generator.normal(size=(2, 2, 30))
    pairs = {name: {"similarity": cosines[at], "score": people[at]} for at, name in enumerate("ab")}
    expected = np.mean([spearmanr(cosines[at], people[at]).statistic for at in (0, 1)])
    assert figure(pairs, "spearman") == pytest.approx(expected)
    label, *found = generator.integers(3, size=(3, 30))
    texts = {"a": {"label": label, "cluster 1": found[0], "cluster 2": found[1]}}
    assert figure(texts, "v_measure") == pytest.approx(np.mean([v_measure_score(label, one) for one in found]))


def test_a_figure_that_was_not_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="got figure 'ndcg@7', these scores have"):
        figure(scores(0, 1), "ndcg@7")


def test_difference_of_one_source_equals_the_paired_bootstrap() -> None:
    above, below = ({"one": part["two"]} for part in (scores(0.3, 1), scores(0, 2)))
    gap = difference(Side(above, "ndcg", None), Side(below, "ndcg", None), seed=0, num_resamples=4000)
    rows = above["one"]["ndcg"] - below["one"]["ndcg"]
    expected = bootstrap((rows,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert gap.value == pytest.approx(rows.mean())
    assert (gap.low, gap.high) == pytest.approx(expected, abs=0.02)


def test_rows_of_one_entity_are_drawn_together() -> None:
    """Rows that stand five times under their entity say no more than once."""
    sides = [{"one": part["two"]} for part in (scores(0.3, 1), scores(0, 2))]
    often = [{"one": {name: np.repeat(column, 5) for name, column in one["one"].items()}} for one in sides]
    gap, same = (difference(*(Side(one, "ndcg", None) for one in both), 0, 500) for both in (sides, often))
    assert (same.value, same.low, same.high) == pytest.approx((gap.value, gap.low, gap.high))


def test_difference_of_sources_is_antisymmetric_and_repeats() -> None:
    above, below = (Side(one, "ndcg", None) for one in (scores(0.3, 1), scores(0, 2)))
    gap, back = difference(above, below, 3, 200), difference(below, above, 3, 200)
    assert gap == difference(above, below, 3, 200)
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))
    assert gap.low < gap.value < gap.high


def test_a_change_is_compared_with_a_change() -> None:
    """Both sides lose exactly 1 by binarising, whatever they score."""
    above, below = (Side(one, "ndcg-binary", "ndcg") for one in (scores(0.3, 1), scores(0, 2)))
    gap = difference(above, below, 0, 100)
    assert (above.value(), gap.value, gap.low, gap.high) == pytest.approx((-1, 0, 0, 0))


def test_sides_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \{'one': 100, 'two': 200\} and \{'one': 10, 'two': 20\} rows"):
        difference(Side(scores(0, 1), "ndcg", None), Side(scores(0, 1, rows=30), "ndcg", None), 0, 100)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.3, AGREES),
        (-0.3, -0.1, DIFFERS),
        (-0.1, 0.1, UNRESOLVED),
        (0.0, 0.0, UNRESOLVED),
        (0.0, 0.2, UNRESOLVED),
    ],
)
def test_a_direction_is_resolved_where_the_interval_leaves_zero_out(low: float, high: float, verdict: str) -> None:
    assert Difference((low + high) / 2, low, high).verdict == verdict


def test_a_claim_holds_where_all_its_comparisons_do() -> None:
    assert overall([AGREES, AGREES]) == AGREES
    assert overall([AGREES, UNRESOLVED]) == UNRESOLVED
    assert overall([AGREES, UNRESOLVED, DIFFERS]) == DIFFERS
