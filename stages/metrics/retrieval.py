"""Retrieval: exact search and its scores, one value per query so that a bootstrap can pair two models.

Shapes: Q queries, C documents, D embedding dim, K ranks. Relevance is binary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Similarities held at once: 64 MiB of float32.
CHUNK_SIZE = 2**24
# Documents searched at once, so that a block of queries against them is worth a matrix product.
DOCUMENT_BLOCK = 2**17


def rank(
    queries: NDArray[np.generic], documents: NDArray[np.generic], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best `k` documents of each query by dot product, best first; of equal scores the lower index wins.

    Args:
        queries: [Q, D], taken as they are (unit vectors make the score a cosine), scored in float32.
        documents: [C, D].
        k: ranks wanted; all C where there are fewer documents.

    Returns:
        (indices [Q, K], scores [Q, K]) with K = min(k, C).
    """
    indices: NDArray[np.int64] = np.empty((len(queries), 0), dtype=np.int64)
    scores: NDArray[np.float32] = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(documents), DOCUMENT_BLOCK):
        block, block_scores = _rank_block(queries, documents[start : start + DOCUMENT_BLOCK], k)
        indices, scores = np.hstack([indices, block + start]), np.hstack([scores, block_scores])
        if start:
            # Earlier blocks stand first and have the lower indices, so the first of equals is right.
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            indices, scores = np.take_along_axis(indices, best, axis=1), np.take_along_axis(scores, best, axis=1)
    return indices, scores


def _rank_block(
    queries: NDArray[np.generic], documents: NDArray[np.generic], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`rank` within so many documents that a chunk of queries against all of them fits into memory."""
    columns = documents.astype(np.float32).T
    chunk = max(1, CHUNK_SIZE // len(documents))
    indices = np.empty((len(queries), min(k, len(documents))), dtype=np.int64)
    scores = np.empty(indices.shape, dtype=np.float32)
    for start in range(0, len(queries), chunk):
        similarities = queries[start : start + chunk].astype(np.float32) @ columns
        for row, similarity in enumerate(similarities, start):
            indices[row] = _best(similarity, indices.shape[1])
            scores[row] = similarity[indices[row]]
    return indices, scores


def ndcg_at_10(ranked: NDArray[np.int64], relevant: Sequence[set[int]]) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of the first ten ranks.

    Args:
        ranked: [Q, K] document indices, best first; ranks past the tenth are ignored, absent ones are misses.
        relevant: the relevant documents' indices of each query.

    Returns:
        [Q], in [0, 1].

    Raises:
        ValueError: if a query has no relevant document.
    """
    hits = _hits(ranked, relevant, 10)
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = np.array([discounts[: len(documents)].sum() for documents in relevant])
    return np.asarray(hits @ discounts[: hits.shape[1]] / ideal)


def recall_at_k(ranked: NDArray[np.int64], relevant: Sequence[set[int]], k: int) -> NDArray[np.float64]:
    """The share of a query's relevant documents that is among the first `k` ranks.

    Args:
        ranked: [Q, K] document indices, best first.
        relevant: the relevant documents' indices of each query.
        k: ranks counted, at most K unless K is already every document.

    Returns:
        [Q], in [0, 1].

    Raises:
        ValueError: if a query has no relevant document.
    """
    return np.asarray(_hits(ranked, relevant, k).sum(axis=1) / [len(documents) for documents in relevant])


def _best(similarity: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k largest of [C], the lower index first among equals."""
    # A full stable sort would do, and costs many times the search itself.
    cut = np.partition(similarity, -k)[-k]
    candidates = np.flatnonzero(similarity >= cut)
    return candidates[np.argsort(-similarity[candidates], kind="stable")[:k]]


def _hits(ranked: NDArray[np.int64], relevant: Sequence[set[int]], k: int) -> NDArray[np.bool_]:
    """Whether each of the first k ranks is relevant: [Q, min(k, K)]."""
    without = [query for query, documents in enumerate(relevant) if not documents]
    if without:
        raise ValueError(f"got no relevant document for query {without[0]}, expected at least 1: drop it")
    rows = zip(ranked[:, :k].tolist(), relevant, strict=True)
    return np.array([[index in documents for index in row] for row, documents in rows])
