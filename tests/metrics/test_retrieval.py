import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim
from sklearn.metrics import ndcg_score
from torch import Tensor

from stages.metrics import retrieval
from stages.metrics.retrieval import ndcg_at_10, rank, recall_at_k

Sides = tuple[np.ndarray, np.ndarray]  # queries, documents

NUM_QUERIES, NUM_DOCUMENTS = 12, 40


@pytest.fixture
def vectors() -> Sides:
    rng = np.random.default_rng(0)
    both = rng.normal(size=(NUM_QUERIES + NUM_DOCUMENTS, 8)).astype(np.float32)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    return both[:NUM_QUERIES], both[NUM_QUERIES:]


@pytest.fixture
def relevant() -> list[set[int]]:
    rng = np.random.default_rng(1)
    sizes = range(1, NUM_QUERIES + 1)  # fewer and more than ten
    return [set(rng.choice(NUM_DOCUMENTS, size, replace=False).tolist()) for size in sizes]


def test_rank_by_hand() -> None:
    queries = np.array([[1, 0], [0, 2]])
    documents = np.array([[1, 3], [5, 0], [3, -1]])
    indices, scores = rank(queries, documents, 2)
    assert indices.tolist() == [[1, 2], [0, 1]]
    assert scores.tolist() == [[5, 3], [6, 0]]


def test_rank_breaks_ties_by_lower_index() -> None:
    documents = np.array([[0.0], [1], [0.5], [1], [0.5], [0.5], [1]])
    assert rank(np.array([[1.0]]), documents, 5)[0].tolist() == [[1, 3, 6, 2, 4]]


def test_rank_equals_a_stable_sort(vectors: Sides) -> None:
    queries, documents = (np.sign(side).astype(np.int8) for side in vectors)  # binary vectors: many ties
    similarities = queries.astype(int) @ documents.T.astype(int)
    indices, scores = rank(queries, documents, 10)
    assert np.array_equal(indices, np.argsort(-similarities, axis=1, kind="stable")[:, :10])
    assert np.array_equal(scores, np.take_along_axis(similarities, indices, axis=1))


def test_rank_of_int8_does_not_overflow() -> None:
    vectors = np.full((1, 1024), 127, dtype=np.int8)
    assert rank(vectors, vectors, 1)[1].tolist() == [[127 * 127 * 1024]]


def test_rank_in_chunks(monkeypatch: pytest.MonkeyPatch, vectors: Sides) -> None:
    indices, scores = rank(*vectors, 10)
    monkeypatch.setattr(retrieval, "CHUNK_SIZE", 5 * NUM_DOCUMENTS)  # 12 queries: 5, 5 and 2
    chunked_indices, chunked_scores = rank(*vectors, 10)
    assert np.array_equal(chunked_indices, indices)
    np.testing.assert_allclose(chunked_scores, scores, atol=1e-6)


@pytest.mark.parametrize("block", [1, 3, 7, NUM_DOCUMENTS - 1])
def test_rank_in_blocks_of_documents(monkeypatch: pytest.MonkeyPatch, vectors: Sides, block: int) -> None:
    queries, documents = (np.round(8 * side) for side in vectors)  # whole numbers: products are exact
    documents = np.concatenate([documents, documents[:5]])  # equals, of which the lower index wins
    expected = [rank(queries, documents, k) for k in (1, 10, len(documents))]
    monkeypatch.setattr(retrieval, "DOCUMENT_BLOCK", block)
    for k, (indices, scores) in zip((1, 10, len(documents)), expected, strict=True):
        in_blocks, block_scores = rank(queries, documents, k)
        assert np.array_equal(in_blocks, indices)
        assert np.array_equal(block_scores, scores)


def test_rank_of_a_small_corpus(vectors: Sides) -> None:
    indices, scores = rank(vectors[0], vectors[1][:3], 10)
    assert indices.shape == scores.shape == (NUM_QUERIES, 3)


def test_ndcg_at_10_by_hand() -> None:
    ranked = np.array([[7, 3, 5], [0, 1, 2]])
    gain = 1 / math.log2(3) + 1 / math.log2(4)  # the second and the third rank are right
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)  # three could have been
    assert ndcg_at_10(ranked, [{3, 5, 9}, {0}]) == pytest.approx([gain / ideal, 1])


def test_ndcg_at_10_ignores_later_ranks() -> None:
    assert ndcg_at_10(np.arange(20)[None], [{10}]).tolist() == [0]
    assert ndcg_at_10(np.arange(20)[None], [set(range(20))]) == pytest.approx([1])


def test_ndcg_at_10_equals_scikit_learn(vectors: Sides, relevant: list[set[int]]) -> None:
    truth = np.array([[document in documents for document in range(NUM_DOCUMENTS)] for documents in relevant])
    similarities = vectors[0] @ vectors[1].T
    expected = [ndcg_score(truth[[i]], similarities[[i]], k=10) for i in range(NUM_QUERIES)]
    assert ndcg_at_10(rank(*vectors, 15)[0], relevant) == pytest.approx(expected)


def test_scores_equal_sentence_transformers(vectors: Sides, relevant: list[set[int]]) -> None:
    queries: dict[str, Any] = {f"{row:02}": str(row) for row in range(NUM_QUERIES)}
    documents: dict[str, Any] = {f"{row:02}": str(row) for row in range(NUM_DOCUMENTS)}
    truth = {query: {f"{row:02}" for row in rows} for query, rows in zip(queries, relevant, strict=True)}
    evaluator = InformationRetrievalEvaluator(
        queries, documents, truth, precision_recall_at_k=[1, 5], score_functions={"cosine": cos_sim}
    )
    model: Any = Lookup(*map(torch.from_numpy, vectors))
    scores: Any = evaluator.compute_all_metrics(model)["cosine"]
    ranked, _ = rank(*vectors, 10)
    assert ndcg_at_10(ranked, relevant).mean() == pytest.approx(scores["ndcg@k"][10])
    assert recall_at_k(ranked, relevant, 1).mean() == pytest.approx(scores["recall@k"][1])
    assert recall_at_k(ranked, relevant, 5).mean() == pytest.approx(scores["recall@k"][5])


def test_recall_at_k_by_hand() -> None:
    ranked = np.array([[7, 3, 5, 9], [0, 1, 2, 3]])
    assert recall_at_k(ranked, [{3, 5, 9}, {0}], 2).tolist() == [1 / 3, 1]


@pytest.mark.parametrize("metric", [ndcg_at_10, lambda ranked, relevant: recall_at_k(ranked, relevant, 1)])
def test_scores_refuse_a_query_without_relevant_documents(metric: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="no relevant document for query 1"):
        metric(np.zeros((2, 3), dtype=int), [{0}, set()])


class Lookup:
    """A Sentence Transformers model whose texts are row numbers."""

    def __init__(self, queries: Tensor, documents: Tensor) -> None:
        self.queries = queries
        self.documents = documents

    def encode_query(self, texts: list[str], **_: object) -> Tensor:
        return self.queries[[int(text) for text in texts]]

    def encode_document(self, texts: list[str], **_: object) -> Tensor:
        return self.documents[[int(text) for text in texts]]
