"""Hard negatives by teacher similarity.

Shapes: Q queries, T teacher dimension, K ranks looked at.
"""

from dataclasses import dataclass

import numpy as np

from stages.metrics.retrieval import rank


@dataclass(frozen=True)
class Mined:
    """Hard negatives of each query, hardest first, and what became of the candidates."""

    negatives: list[list[int]]  # at most `num_negatives` document rows a query; never filled up
    scores: list[list[float]]
    positive_scores: np.ndarray  # [Q]
    num_candidates: int
    num_removed: int  # by the margin: too close to the positive, likely unlabelled positives


def mine(
    queries: np.ndarray,
    documents: np.ndarray,
    *,
    num_negatives: int,
    rank_window: tuple[int, int],
    relative_margin: float,
) -> Mined:
    """Take each query's nearest documents that are not too near.

    A candidate stands within `rank_window` (1 = nearest) of the query's list without its own document, and scores at
    most (1 - relative_margin) of the score of its own document, as in NV-Retriever (arXiv 2407.15831).

    Args:
        queries, documents: unit vectors [Q, T]; document i is the positive of query i.
    """
    first, last = rank_window
    ranked, scores = rank(queries, documents, last + 1)
    positive = np.einsum("qt,qt->q", queries, documents, dtype=np.float32)
    negatives: list[list[int]] = []
    kept_scores: list[list[float]] = []
    num_candidates = num_removed = 0
    for query, (order, values) in enumerate(zip(ranked, scores, strict=True)):
        others = order != query
        candidates, similarities = order[others][first - 1 : last], values[others][first - 1 : last]
        allowed = similarities <= (1 - relative_margin) * positive[query]
        num_candidates += len(candidates)
        num_removed += int((~allowed).sum())
        negatives.append(candidates[allowed][:num_negatives].tolist())
        kept_scores.append(similarities[allowed][:num_negatives].tolist())
    return Mined(negatives, kept_scores, positive, num_candidates, num_removed)
