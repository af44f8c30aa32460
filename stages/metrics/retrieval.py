"""Retrieval: exact search and its scores, a value for each query so that two models can be compared in pairs.

Shapes: Q queries, C documents, D embedding dimension, K ranks. Relevance is binary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Similarities held in memory at the same time: 64 MiB of float32.
CHUNK_SIZE = 2**24
# Documents in a block: enough to make its product with a block of queries worth a matrix multiplication.
DOCUMENT_BLOCK = 2**17


def rank(
    queries: NDArray[np.generic], documents: NDArray[np.generic], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the best `k` documents of each query by dot product, best first; among equal scores the lower index wins.

    >>> rank(np.array([[1, 0]]), np.array([[0, 1], [3, 0]]), k=2)[0]
    array([[1, 0]])

    Args:
        queries: [Q, D], not normalised here (the dot product of unit vectors is their cosine), scored in float32.
        documents: [C, D].
        k: number of ranks; all C where there are fewer documents.

    Returns:
        (indices [Q, K], scores [Q, K]) with K = min(k, C).
    """
    indices: NDArray[np.int64] = np.empty((len(queries), 0), dtype=np.int64)
    scores: NDArray[np.float32] = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(documents), DOCUMENT_BLOCK):
        block, block_scores = _rank_block(queries, documents[start : start + DOCUMENT_BLOCK], k)
        indices, scores = np.hstack([indices, block + start]), np.hstack([scores, block_scores])
        if start:
            # Earlier blocks stand first and have the lower indices, so a stable sort keeps the tie rule.
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            indices, scores = np.take_along_axis(indices, best, axis=1), np.take_along_axis(scores, best, axis=1)
    return indices, scores


def _rank_block(
    queries: NDArray[np.generic], documents: NDArray[np.generic], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`rank` among the documents of one block, with the queries in chunks that fit into memory."""
    columns = documents.astype(np.float32).T
    chunk = max(1, CHUNK_SIZE // len(documents))
    indices = np.empty((len(queries), min(k, len(documents))), dtype=np.int64)
    scores = np.empty(indices.shape, dtype=np.float32)
    for start in range(0, len(queries), chunk):
        similarities = queries[start : start + chunk].astype(np.float32) @ columns
        for row, similarity in enumerate(similarities, start):
            indices[row] = _largest(similarity, indices.shape[1])
            scores[row] = similarity[indices[row]]
    return indices, scores


def _largest(similarity: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k largest of [C], the lower index first among equals."""
    # A stable sort of all C would give the same and takes many times as long as the search.
    threshold = np.partition(similarity, -k)[-k]
    candidates = np.flatnonzero(similarity >= threshold)
    return candidates[np.argsort(-similarity[candidates], kind="stable")[:k]]


def ndcg_at_10(ranked: NDArray[np.int64], relevant: Sequence[set[int]]) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of the first ten ranks [Q], in [0, 1].

    >>> ndcg_at_10(np.array([[4, 7], [7, 4]]), relevant=[{4}, {4}]).round(3)
    array([1.   , 0.631])

    Args:
        ranked: [Q, K] document indices, best first; fewer than ten count as misses.
        relevant: indices of the relevant documents of each query.

    Raises:
        ValueError: a query has no relevant document.
    """
    hits = _hits(ranked, relevant, 10)
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = np.array([discounts[: len(documents)].sum() for documents in relevant])
    return np.asarray(hits @ discounts[: hits.shape[1]] / ideal)


def recall_at_k(ranked: NDArray[np.int64], relevant: Sequence[set[int]], k: int) -> NDArray[np.float64]:
    """Share of each query's relevant documents that are among the first `k` ranks [Q], in [0, 1].

    >>> recall_at_k(np.array([[4, 7, 1]]), relevant=[{1, 4}], k=2)
    array([0.5])

    Raises:
        ValueError: a query has no relevant document.
    """
    return np.asarray(_hits(ranked, relevant, k).sum(axis=1) / [len(documents) for documents in relevant])


def _hits(ranked: NDArray[np.int64], relevant: Sequence[set[int]], k: int) -> NDArray[np.bool_]:
    """Whether each of the first k ranks is relevant: [Q, min(k, K)]."""
    for query, documents in enumerate(relevant):
        if not documents:
            raise ValueError(f"got no relevant document for query {query}, expected at least 1: drop the query")
    rows = zip(ranked[:, :k].tolist(), relevant, strict=True)
    return np.array([[index in documents for index in row] for row, documents in rows])
