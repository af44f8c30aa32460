"""Hard negatives on vectors made by hand: the angle between two texts is in plain sight."""

import math
from typing import Any

import numpy as np
import pytest

from stages.corpus.mining import mine


def at(*degrees: float) -> np.ndarray:
    return np.array([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees], dtype=np.float32)


def found(queries: np.ndarray, documents: np.ndarray, **others: Any) -> Any:
    return mine(queries, documents, **({"num_negatives": 2, "rank_window": (1, 4), "relative_margin": 0.0} | others))


# Query 0 at 0 degrees; its own document at 20, the others at 10 (too near), 25, 40, 60, 90.
QUERIES = at(0, 10, 25, 40, 60, 90)
DOCUMENTS = at(20, 10, 25, 40, 60, 90)


def test_negatives_are_the_nearest_that_score_less_than_the_positive() -> None:
    mined = found(QUERIES, DOCUMENTS)
    assert mined.negatives[0] == [2, 3], "the document at 10 degrees scores more than the positive"
    assert mined.scores[0] == pytest.approx([math.cos(math.radians(25)), math.cos(math.radians(40))], abs=1e-6)
    assert mined.positive_scores[0] == pytest.approx(math.cos(math.radians(20)), abs=1e-6)
    for scores in mined.scores:
        assert scores == sorted(scores, reverse=True)


def test_margin_is_relative_to_the_positive() -> None:
    # cos 20 = 0.940, cos 25 = 0.906 (0.964 of it), cos 40 = 0.766 (0.815), cos 60 = 0.5 (0.532)
    assert found(QUERIES, DOCUMENTS, relative_margin=0.03).negatives[0] == [2, 3]
    assert found(QUERIES, DOCUMENTS, relative_margin=0.05).negatives[0] == [3, 4]
    assert found(QUERIES, DOCUMENTS, relative_margin=0.2).negatives[0] == [4]


def test_window_counts_ranks_without_the_positive() -> None:
    # The query's list without its own document: 10, 25, 40, 60, 90 degrees.
    assert found(QUERIES, DOCUMENTS, rank_window=(1, 1)).negatives[0] == []
    assert found(QUERIES, DOCUMENTS, rank_window=(2, 2)).negatives[0] == [2]
    assert found(QUERIES, DOCUMENTS, rank_window=(3, 5), num_negatives=5).negatives[0] == [3, 4, 5]
    assert found(QUERIES, DOCUMENTS, rank_window=(1, 50), num_negatives=9).negatives[0] == [2, 3, 4, 5]


def test_window_holds_as_much_where_the_positive_is_not_among_the_nearest() -> None:
    """Query 0's own document is the last of its list: the window's last rank must not be lost or shifted."""
    documents = at(90, 10, 25, 40, 60, 80)
    mined = found(QUERIES, documents, rank_window=(1, 3), num_negatives=3)
    assert mined.negatives[0] == []
    assert mined.num_candidates == 3 * 6


def test_never_filled_up_and_counted() -> None:
    mined = found(QUERIES, DOCUMENTS, relative_margin=1.0, rank_window=(1, 3))
    assert [row for row in mined.negatives if row] == []
    assert (mined.num_candidates, mined.num_removed) == (18, 18)
    mined = found(QUERIES[:1], DOCUMENTS[:1])
    assert mined.negatives == [[]]
    assert mined.num_candidates == 0


def test_never_the_positive_on_many_vectors() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(2, 300, 8)).astype(np.float32)
    queries, documents = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    similarity = queries @ documents.T
    mined = found(queries, documents, rank_window=(3, 120), relative_margin=0.1, num_negatives=5)
    filled = 0
    for query, negatives in enumerate(mined.negatives):
        assert query not in negatives
        assert len(negatives) == len(set(negatives)) <= 5
        others = np.argsort(-np.delete(similarity[query], query), kind="stable")[2:120]
        others = others + (others >= query)
        limit = 0.9 * similarity[query, query]
        assert negatives == [row for row in others if similarity[query, row] <= limit][:5]
        filled += len(negatives) == 5
    assert filled > 50
    assert mined.num_candidates == 300 * 118
