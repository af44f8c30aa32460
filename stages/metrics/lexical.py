"""BM25, the lexical baseline that every retrieval table shows (library: bm25s).

Shapes: Q queries, C documents, K ranks.
"""

from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray


def bm25_rank(queries: Sequence[str], documents: Sequence[str], k: int, k1: float, b: float) -> NDArray[np.int64]:
    """The best `k` documents [Q, K] of each query by BM25 over lower-cased words without English stop words."""
    index = bm25s.BM25(k1=k1, b=b)
    index.index(bm25s.tokenize(list(documents), stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(queries), stopwords="en", show_progress=False)
    ranked, _ = index.retrieve(tokens, k=min(k, len(documents)), show_progress=False)
    return np.asarray(ranked, dtype=np.int64)
