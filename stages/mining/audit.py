"""The audit of a source's hard negatives: shares, the curve of margins, suspected answers and examples.

Shapes: Q pairs.
"""

from typing import Any

import numpy as np

from stages.mining.candidates import Candidates
from stages.mining.hard_negatives import HardNegatives, margin_curve
from stages.recipe.mine import Mine

# Relative margins of the curve.
MARGINS = tuple(step / 50 for step in range(16))

Rows = list[dict[str, Any]]


def audit_source(
    pairs: Rows,
    positive_scores: np.ndarray,
    candidates: Candidates,
    negatives: HardNegatives,
    section: Mine,
    seed: int,
) -> dict[str, Any]:
    """Describe the hard negatives of a source's training pairs.

    Args:
        positive_scores: the teacher's similarity [Q] of each query and its positive.
        seed: draws the examples.
    """
    too_few = sum(len(rows) < section.num_negatives for rows in negatives.rows)
    scores = [score for of_query in negatives.scores for score in of_query]
    num_candidates = int((candidates.rows >= 0).sum())
    return {
        "pairs": len(pairs),
        "candidates": num_candidates,
        "removed_by_margin": int(negatives.removed.sum()) / max(1, num_candidates),
        "with_too_few_negatives": too_few / len(pairs),
        "mean_positive_score": float(positive_scores.mean()),
        "mean_negative_score": float(np.mean(scores or [0.0])),
        "margin_curve": margin_curve(candidates, positive_scores, section.num_negatives, MARGINS),
        "suspects": _suspects(pairs, positive_scores, candidates, negatives.removed)[: section.num_examples],
        "examples": _examples(pairs, positive_scores, negatives, section.num_examples, seed),
    }


def _suspects(pairs: Rows, positive_scores: np.ndarray, candidates: Candidates, removed: np.ndarray) -> Rows:
    """List each query's best removed candidate, a likely answer without a label, furthest above its positive first."""
    queries = np.flatnonzero(removed.any(axis=1))
    best = np.where(removed, candidates.scores, -np.inf)[queries].argmax(axis=1)
    rows, scores = candidates.rows[queries, best], candidates.scores[queries, best].astype(np.float64)
    order = np.argsort(positive_scores[queries] - scores, kind="stable")
    return [
        _pair(pairs, positive_scores, query) | {"suspect": pairs[row]["document"], "suspect_score": score}
        for query, row, score in zip(queries[order].tolist(), rows[order].tolist(), scores[order].tolist(), strict=True)
    ]


def _examples(pairs: Rows, positive_scores: np.ndarray, negatives: HardNegatives, number: int, seed: int) -> Rows:
    """List some pairs with their negatives."""
    chosen = np.random.default_rng(seed).choice(len(pairs), min(number, len(pairs)), replace=False)
    return [
        _pair(pairs, positive_scores, query)
        | {
            "negatives": [pairs[row]["document"] for row in negatives.rows[query]],
            "negative_scores": negatives.scores[query],
        }
        for query in chosen
    ]


def _pair(pairs: Rows, positive_scores: np.ndarray, query: int) -> dict[str, Any]:
    pair = pairs[query]
    return {"query": pair["query"], "document": pair["document"], "score": float(positive_scores[query])}
