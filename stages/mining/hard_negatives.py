"""Hard negatives: candidates close to the query but below the teacher's margin.

A negative scores at most (1 - relative_margin) times the score of the query's positive, as in NV-Retriever (arXiv
2407.15831), and at least absolute_margin less than the positive; both by the teacher. Closer candidates are likely
answers that nobody labelled.

Shapes: Q queries, K candidates of a query.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.mining.candidates import Candidates
from stages.recipe.mine import Mine


@dataclass(frozen=True)
class HardNegatives:
    """Hard negatives of each query: at most `num_negatives`, fewer where the margins leave fewer candidates."""

    rows: list[list[int]]
    scores: list[list[float]]
    removed: np.ndarray  # [Q, K]; whether the margins removed a candidate


def mine_negatives(candidates: Candidates, positive_scores: np.ndarray, section: Mine) -> HardNegatives:
    """Take the first candidates of each query that the margins leave.

    >>> negatives = mine_negatives(teacher_candidates(queries, documents, (1, 50)), positive_scores, recipe.mine)

    Args:
        positive_scores: the teacher's similarity [Q] of each query and its positive.
    """
    limits = (1 - section.relative_margin) * positive_scores
    if section.absolute_margin is not None:
        limits = np.minimum(limits, positive_scores - section.absolute_margin)
    exist, below = candidates.rows >= 0, candidates.scores <= limits[:, None]
    left = exist & below
    taken = left & (left.cumsum(axis=1) <= section.num_negatives)
    rows, scores = (
        [values[chosen].tolist() for values, chosen in zip(table, taken, strict=True)]
        for table in (candidates.rows, candidates.scores)
    )
    return HardNegatives(rows, scores, exist & ~below)


def margin_curve(
    candidates: Candidates, positive_scores: np.ndarray, num_negatives: int, margins: Sequence[float]
) -> list[dict[str, float]]:
    """Compute for each relative margin alone the share of candidates removed and of queries with too few negatives."""
    exist = candidates.rows >= 0
    curve = []
    for margin in margins:
        left = ((candidates.scores <= (1 - margin) * positive_scores[:, None]) & exist).sum(axis=1)
        removed = 1 - left.sum() / max(1, exist.sum())
        curve.append({"margin": margin, "removed": float(removed), "too_few": float((left < num_negatives).mean())})
    return curve
