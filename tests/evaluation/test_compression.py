"""Precisions and dimensions: what is stored, and what retrieval keeps of it."""

import numpy as np
import pytest

from stages.evaluation.compression import compression, rescored, stored
from stages.evaluation.tasks import ranking_score
from stages.metrics.lexical import bm25_rank
from stages.metrics.row_outcomes import Mean, figure


@pytest.fixture
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(3).normal(size=(40, 16)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sides(queries: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
    return {"query": queries, "document": documents}


def test_a_cut_is_renormalised(vectors: np.ndarray) -> None:
    cut = stored(vectors, 4, "float32", 1.0)
    assert cut.shape == (40, 4)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)


def test_binary_is_the_sign_also_where_the_bits_do_not_fill_a_byte(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(stored(vectors, 13, "binary", 1.0), np.where(vectors[:, :13] > 0, 1, -1))


def test_int8_is_within_a_step_and_clips_at_the_limit(vectors: np.ndarray) -> None:
    codes = stored(vectors, 16, "int8", 0.5)
    assert codes.dtype == np.int8
    step = 1.0 / 255
    inside = np.abs(vectors) < 0.5
    np.testing.assert_allclose(((codes.astype(float) + 128) * step - 0.5)[inside], vectors[inside], atol=1.01 * step)
    assert set(codes[vectors > 0.5]) <= {127}


def test_identical_sides_are_found_at_every_precision(vectors: np.ndarray) -> None:
    scored = compression({"one": sides(vectors, vectors)}, [8, 16], {"8": 1.0, "16": 1.0})
    table = {cell: figure(by_source["one"]) for cell, by_source in scored.items()}
    assert table["float32/8"] == table["float32/16"] == 1.0
    assert table["int8/16"] == pytest.approx(1.0)
    assert table["binary/8"] < table["binary/16"] <= 1.0  # 40 texts share 8 bits more often than 16


def test_float_queries_see_what_bits_do_not() -> None:
    queries = np.array([[0.9, 0.1, 0.1, -0.1], [-0.9, -0.1, -0.1, 0.1]])
    documents = np.array([[0.9, -0.2, -0.3, -0.1], [-0.9, 0.2, 0.3, -0.1]])  # bits + - - - and - + + -
    # Query 0 has 2 bits of document 0 and 3 of document 1; weighted, .8 and -.6. Query 1 is its opposite.
    scored = compression({"one": sides(queries, documents)}, [4], {"4": 1.0})
    table = {cell.partition("/")[0]: figure(by_source["one"]) for cell, by_source in scored.items()}
    assert table["binary"] == pytest.approx(1 / np.log2(3))
    assert table["binary_float_queries"] == table["binary_rescored"] == table["float32"] == table["int8"] == 1.0


def test_rescoring_orders_candidates_and_adds_none() -> None:
    queries = np.array([[0.5, 0.2], [-0.5, 0.1]])
    documents = np.array([[1, 1], [1, -1], [-1, 1], [1, 1]], dtype=np.int8)
    # Query 0 gives .7, .3, -.3, .7 and query 1 -.4, -.6, .6, -.4; document 2 is no candidate of query 0.
    candidates = np.array([[1, 3, 0], [0, 1, 2]])
    assert rescored(queries, documents, candidates).tolist() == [[3, 0, 1], [2, 0, 1]]


def test_only_the_candidates_of_bits_are_rescored(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.evaluation.compression.CANDIDATES", 1)
    scored = compression({"one": sides(vectors, vectors[:, ::-1])}, [16], {"16": 1.0})
    table = {cell.partition("/")[0]: by_source["one"] for cell, by_source in scored.items()}
    np.testing.assert_array_equal(vars(table["binary_rescored"])["scores"], vars(table["binary"])["scores"])
    assert figure(table["binary_rescored"]) != figure(table["binary_float_queries"])


def test_ranking_score_counts_document_i_for_query_i() -> None:
    score = ranking_score(np.array([[0, 1, 2], [2, 1, 0], [0, 1, 2]]))
    assert isinstance(score.outcomes, Mean)
    np.testing.assert_allclose(score.outcomes.scores, [1, 1 / np.log2(3), 1 / np.log2(4)])
    assert score.figures["recall_at_100"] == 1.0


def test_bm25_ranks_the_document_with_the_rare_word_first() -> None:
    documents = ["the cat sat on the mat", "a dog ran over the road", "stock markets fell sharply"]
    assert bm25_rank(["why did markets fall", "dog"], documents, 3, k1=1.5, b=0.75)[:, 0].tolist() == [2, 1]
