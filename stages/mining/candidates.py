"""Candidates for hard negatives: a source's documents as ranked by the teacher, by BM25 or by an earlier student.

Document i is the positive of query i. Every candidate has the teacher's similarity, whichever list it comes from.

Shapes: Q queries (and documents), T teacher dimension, R ranks of a ranking, W ranks of a window, K candidates of a
query. A row of -1 means no document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sentence_transformers import SentenceTransformer

from stages.metrics.lexical import bm25_search
from stages.metrics.retrieval import rank
from stages.recipe.evaluate import Bm25

# Pairs of vectors multiplied at once.
BLOCK_PAIRS = 2**16
STUDENT_BATCH_SIZE = 32


@dataclass(frozen=True)
class Candidates:
    """Candidates of each query, best first, and the teacher's similarities."""

    rows: np.ndarray  # [Q, K]
    scores: np.ndarray  # [Q, K] float32


def teacher_candidates(queries: np.ndarray, documents: np.ndarray, rank_window: tuple[int, int]) -> Candidates:
    """Take the documents nearest to each query for the teacher.

    Args:
        queries, documents: the teacher's unit vectors [Q, T].
        rank_window: first and last rank to take; rank 1 is the nearest document beside the positive.
    """
    ranked, scores = rank(queries, documents, rank_window[1] + 1)
    return Candidates(*_window(ranked, scores, rank_window))


def ranked_candidates(
    queries: np.ndarray, documents: np.ndarray, ranked: np.ndarray, rank_window: tuple[int, int]
) -> Candidates:
    """Take the same ranks of another ranking [Q, R], with the teacher's similarities."""
    rows, _ = _window(ranked, np.zeros(ranked.shape, dtype=np.float32), rank_window)
    scores = np.zeros(rows.shape, dtype=np.float32)
    block = max(1, BLOCK_PAIRS // max(1, rows.shape[1]))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        scores[part] = np.einsum("qt,qkt->qk", queries[part], documents[rows[part]], dtype=np.float32)
    return Candidates(rows, scores)


def bm25_ranking(queries: Sequence[str], documents: Sequence[str], num_ranks: int, section: Bm25) -> np.ndarray:
    """Rank documents by BM25 [Q, R]; a ranking ends before documents that share no word with the query."""
    ranked, scores = bm25_search(queries, documents, num_ranks, section.k1, section.b)
    return np.where(scores > 0, ranked, -1)


class Student:
    """The retriever of an earlier build.

    Args:
        folder: its `merged/retrieval`.
        max_tokens: most tokens that it reads of a text.
    """

    def __init__(self, folder: str, max_tokens: int) -> None:
        self._model = SentenceTransformer(folder, trust_remote_code=False, local_files_only=True)
        self._model.max_seq_length = min(self._model.max_seq_length or max_tokens, max_tokens)

    def ranking(self, queries: Sequence[str], documents: Sequence[str], num_ranks: int) -> np.ndarray:
        """Rank documents [Q, R] by the student's cosine similarity."""
        return rank(self._encode(queries, "query"), self._encode(documents, "document"), num_ranks)[0]

    def _encode(self, texts: Sequence[str], side: str) -> np.ndarray:
        vectors = self._model.encode(
            list(texts), prompt_name=side, batch_size=STUDENT_BATCH_SIZE, normalize_embeddings=True
        )
        return np.asarray(vectors, dtype=np.float32)


def merge(lists: Sequence[Candidates]) -> Candidates:
    """Take candidates from the lists in turns, rank by rank; a repeated document becomes -1."""
    num_queries = len(lists[0].rows)
    rows = np.stack([candidates.rows for candidates in lists], axis=-1).reshape(num_queries, -1)
    scores = np.stack([candidates.scores for candidates in lists], axis=-1).reshape(num_queries, -1)
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeated = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return Candidates(np.where(repeated, -1, rows), scores)


def _window(ranked: np.ndarray, scores: np.ndarray, rank_window: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Take each query's positive out of its ranking and cut out the window: (rows, scores) [Q, W]."""
    first, last = rank_window
    positives = np.arange(len(ranked))[:, None]
    # A stable sort moves the positive behind all other documents.
    order = np.argsort(ranked == positives, axis=1, kind="stable")
    rows, scores = np.take_along_axis(ranked, order, axis=1), np.take_along_axis(scores, order, axis=1)
    rows = np.where(rows == positives, -1, rows)
    return rows[:, first - 1 : last], scores[:, first - 1 : last]
