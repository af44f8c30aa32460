"""BM25, the lexical baseline of every retrieval table (library: bm25s).

Shapes: Q queries, C documents, K ranks.
"""

from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray


def bm25_rank(queries: Sequence[str], documents: Sequence[str], k: int, k1: float, b: float) -> NDArray[np.int64]:
    """Find the best `k` documents [Q, K] of each query by BM25 over lower-cased words without English stop words.

    >>> bm25_rank(["copper still"], ["oak cask", "a copper pot still"], k=1, k1=1.5, b=0.75)
    array([[1]])
    """
    return bm25_search(queries, documents, k, k1, b)[0]


def bm25_search(
    queries: Sequence[str], documents: Sequence[str], k: int, k1: float, b: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the same documents [Q, K] with their scores [Q, K]; a document without a word of the query scores 0."""
    index = bm25s.BM25(k1=k1, b=b)
    index.index(bm25s.tokenize(list(documents), stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(queries), stopwords="en", show_progress=False)
    ranked, scores = index.retrieve(tokens, k=min(k, len(documents)), show_progress=False)
    return np.asarray(ranked, dtype=np.int64), np.asarray(scores, dtype=np.float32)
