"""Hard negatives on vectors made by hand, by the angle between two texts."""

import math
from typing import Any

import numpy as np
import pytest

from stages.mining.audit import audit_source
from stages.mining.candidates import Candidates, merge, ranked_candidates, teacher_candidates
from stages.mining.hard_negatives import HardNegatives, margin_curve, mine_negatives
from stages.recipe.mine import Mine


def at(*degrees: float) -> np.ndarray:
    """Unit vectors at angles."""
    return np.array([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees], dtype=np.float32)


def section(
    num_negatives: int = 2,
    relative_margin: float = 0.0,
    absolute_margin: float | None = None,
    rank_window: tuple[int, int] = (1, 4),
) -> Mine:
    return Mine(
        sources=("words",),
        candidates=("teacher",),
        student=None,
        num_negatives=num_negatives,
        rank_window=rank_window,
        relative_margin=relative_margin,
        absolute_margin=absolute_margin,
        consistency={},
        num_examples=1,
    )


def mined_by(mine: Mine, queries: np.ndarray, documents: np.ndarray) -> HardNegatives:
    """Hard negatives among the teacher's candidates."""
    candidates = merge([teacher_candidates(queries, documents, mine.rank_window)])
    return mine_negatives(candidates, positives(queries, documents), mine)


def num_candidates(queries: np.ndarray, documents: np.ndarray, rank_window: tuple[int, int]) -> int:
    return int((teacher_candidates(queries, documents, rank_window).rows >= 0).sum())


def positives(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    return np.einsum("qt,qt->q", queries, documents, dtype=np.float32)


# Query 0 at 0 degrees; its own document at 20, the others at 10 (too close), 25, 40, 60, 90.
QUERIES = at(0, 10, 25, 40, 60, 90)
DOCUMENTS = at(20, 10, 25, 40, 60, 90)


def test_negatives_are_the_nearest_that_score_less_than_the_positive() -> None:
    mined = mined_by(section(), QUERIES, DOCUMENTS)
    assert mined.rows[0] == [2, 3], "the document at 10 degrees scores more than the positive"
    assert mined.scores[0] == pytest.approx([math.cos(math.radians(25)), math.cos(math.radians(40))], abs=1e-6)
    for scores in mined.scores:
        assert scores == sorted(scores, reverse=True)


def test_margin_is_relative_to_the_positive() -> None:
    # cos 20 = 0.940, cos 25 = 0.906 (0.964 of it), cos 40 = 0.766 (0.815), cos 60 = 0.5 (0.532)
    assert mined_by(section(relative_margin=0.03), QUERIES, DOCUMENTS).rows[0] == [2, 3]
    assert mined_by(section(relative_margin=0.05), QUERIES, DOCUMENTS).rows[0] == [3, 4]
    assert mined_by(section(relative_margin=0.2), QUERIES, DOCUMENTS).rows[0] == [4]


def test_window_counts_ranks_without_the_positive() -> None:
    # The query's list without its own document: 10, 25, 40, 60, 90 degrees.
    assert mined_by(section(rank_window=(1, 1)), QUERIES, DOCUMENTS).rows[0] == []
    assert mined_by(section(rank_window=(2, 2)), QUERIES, DOCUMENTS).rows[0] == [2]
    assert mined_by(section(rank_window=(3, 5), num_negatives=5), QUERIES, DOCUMENTS).rows[0] == [3, 4, 5]
    assert mined_by(section(rank_window=(1, 50), num_negatives=9), QUERIES, DOCUMENTS).rows[0] == [2, 3, 4, 5]


def test_window_holds_as_much_where_the_positive_is_not_among_the_nearest() -> None:
    """Query 0's own document is the last of its list: the window's last rank must not be lost or shifted."""
    documents = at(90, 10, 25, 40, 60, 80)
    mined = mined_by(section(rank_window=(1, 3), num_negatives=3), QUERIES, documents)
    assert mined.rows[0] == []
    assert num_candidates(QUERIES, documents, (1, 3)) == 3 * 6


def test_never_filled_up_and_counted() -> None:
    mined = mined_by(section(relative_margin=1.0, rank_window=(1, 3)), QUERIES, DOCUMENTS)
    assert [row for row in mined.rows if row] == []
    assert num_candidates(QUERIES, DOCUMENTS, (1, 3)) == mined.removed.sum() == 18
    mined = mined_by(section(), QUERIES[:1], DOCUMENTS[:1])
    assert mined.rows == [[]]
    assert num_candidates(QUERIES[:1], DOCUMENTS[:1], (1, 4)) == 0


def test_never_the_positive_on_many_vectors() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(2, 300, 8)).astype(np.float32)
    queries, documents = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    similarity = queries @ documents.T
    mined = mined_by(section(rank_window=(3, 120), relative_margin=0.1, num_negatives=5), queries, documents)
    filled = 0
    for query, negatives in enumerate(mined.rows):
        assert query not in negatives
        assert len(negatives) == len(set(negatives)) <= 5
        others = np.argsort(-np.delete(similarity[query], query), kind="stable")[2:120]
        others = others + (others >= query)
        limit = 0.9 * similarity[query, query]
        assert negatives == [row for row in others if similarity[query, row] <= limit][:5]
        filled += len(negatives) == 5
    assert filled > 50
    assert num_candidates(queries, documents, (3, 120)) == 300 * 118


def test_an_absolute_margin_holds_beside_the_relative_one() -> None:
    # cos 20 = 0.940: at most 0.740 is left by 0.2, at most 0.752 by 20 %, which 0.766 (40 degrees) is above.
    assert mined_by(section(absolute_margin=0.1), QUERIES, DOCUMENTS).rows[0] == [3, 4]
    assert mined_by(section(absolute_margin=0.2), QUERIES, DOCUMENTS).rows[0] == [4]
    assert mined_by(section(absolute_margin=0.0, relative_margin=0.2), QUERIES, DOCUMENTS).rows[0] == [4]


def suspects(queries: np.ndarray, documents: np.ndarray) -> list[dict[str, Any]]:
    """Suspects of the audit of pairs whose document is named by its number."""
    pairs = [{"query": f"query {number}", "document": str(number)} for number in range(len(queries))]
    scores, mine = positives(queries, documents), section()
    candidates = merge([teacher_candidates(queries, documents, mine.rank_window)])
    audit = audit_source(pairs, scores, candidates, mine_negatives(candidates, scores, mine), mine, seed=0)
    found: list[dict[str, Any]] = audit["suspects"]
    return found


def test_the_suspect_is_the_best_of_what_was_removed() -> None:
    (suspect,) = suspects(QUERIES, DOCUMENTS)
    assert (suspect["query"], suspect["suspect"]) == ("query 0", "1")
    assert suspect["suspect_score"] == pytest.approx(math.cos(math.radians(10)), abs=1e-6)
    assert suspects(QUERIES[:1], DOCUMENTS[:1]) == []


def test_lists_are_drawn_from_in_turns_and_judged_by_the_teacher() -> None:
    """Another list's order for query 0: its own document, then 90, 25, 10 degrees, and no more."""
    ranked = np.tile(np.array([0, 5, 2, 1, -1]), (6, 1))
    other = ranked_candidates(QUERIES, DOCUMENTS, ranked, (1, 4))
    assert other.rows[0].tolist() == [5, 2, 1, -1]
    assert other.scores[0, :2] == pytest.approx([0.0, math.cos(math.radians(25))], abs=1e-6)
    both = merge([teacher_candidates(QUERIES, DOCUMENTS, (1, 4)), other])
    assert [row for row in both.rows[0] if row >= 0] == [1, 5, 2, 3, 4], "10, 90, 25, 40, 60 degrees, each once"
    mined = mine_negatives(both, positives(QUERIES, DOCUMENTS), section(num_negatives=9))
    assert mined.rows[0] == [5, 2, 3, 4], "10 degrees is too close in every list"
    alone = mine_negatives(merge([other]), positives(QUERIES, DOCUMENTS), section(num_negatives=9))
    assert alone.rows[0] == [5, 2], "never filled up"


def test_the_curve_says_what_each_margin_would_do() -> None:
    # Query 0 alone, its list at 10, 25, 40, 60, 90 degrees: 1.048, 0.964, 0.815, 0.532 and 0 of its positive.
    candidates = teacher_candidates(QUERIES[:1].repeat(6, axis=0), DOCUMENTS, (1, 5))
    first = Candidates(candidates.rows[:1], candidates.scores[:1])
    curve = margin_curve(first, positives(QUERIES, DOCUMENTS)[:1], 3, (0.0, 0.05, 0.2, 0.5))
    assert [point["margin"] for point in curve] == [0.0, 0.05, 0.2, 0.5]
    assert [point["removed"] for point in curve] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [point["too_few"] for point in curve] == [0, 0, 1, 1]
