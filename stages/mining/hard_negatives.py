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
    """Hard negatives of each query, and counts of the candidates."""

    rows: list[list[int]]  # at most `num_negatives` documents of each query; fewer where fewer candidates are left
    scores: list[list[float]]
    suspects: list[tuple[int, float] | None]  # the best candidate of each query that the margins removed, and its score
    num_candidates: int
    num_removed: int  # by the margins


def mine_negatives(candidates: Candidates, positive_scores: np.ndarray, section: Mine) -> HardNegatives:
    """Take the first candidates of each query that the margins leave.

    >>> negatives = mine_negatives(teacher_candidates(queries, documents, (1, 50)), positive_scores, recipe.mine)

    Args:
        positive_scores: the teacher's similarity [Q] of each query and its positive.
    """
    limits = (1 - section.relative_margin) * positive_scores
    if section.absolute_margin is not None:
        limits = np.minimum(limits, positive_scores - section.absolute_margin)
    negatives: list[list[int]] = []
    negative_scores: list[list[float]] = []
    suspects: list[tuple[int, float] | None] = []
    num_candidates = num_removed = 0
    for row, scores, limit in zip(candidates.rows, candidates.scores, limits, strict=True):
        documents, similarities = row[row >= 0], scores[row >= 0]
        allowed = similarities <= limit
        num_candidates += len(documents)
        num_removed += int((~allowed).sum())
        negatives.append(documents[allowed][: section.num_negatives].tolist())
        negative_scores.append(similarities[allowed][: section.num_negatives].tolist())
        suspects.append(_best(documents[~allowed], similarities[~allowed]))
    return HardNegatives(negatives, negative_scores, suspects, num_candidates, num_removed)


def margin_curve(
    candidates: Candidates, positive_scores: np.ndarray, num_negatives: int, margins: Sequence[float]
) -> list[dict[str, float]]:
    """Compute for each relative margin alone the share of candidates removed and of queries with too few negatives."""
    exists = candidates.rows >= 0
    curve = []
    for margin in margins:
        left = ((candidates.scores <= (1 - margin) * positive_scores[:, None]) & exists).sum(axis=1)
        removed = 1 - left.sum() / max(1, exists.sum())
        curve.append({"margin": margin, "removed": float(removed), "too_few": float((left < num_negatives).mean())})
    return curve


def _best(documents: np.ndarray, scores: np.ndarray) -> tuple[int, float] | None:
    if len(documents) == 0:
        return None
    best = int(scores.argmax())
    return int(documents[best]), float(scores[best])
