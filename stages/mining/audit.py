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
    return {
        "pairs": len(pairs),
        "candidates": negatives.num_candidates,
        "removed_by_margin": negatives.num_removed / max(1, negatives.num_candidates),
        "with_too_few_negatives": too_few / len(pairs),
        "mean_positive_score": float(positive_scores.mean()),
        "mean_negative_score": float(np.mean(scores or [0.0])),
        "margin_curve": margin_curve(candidates, positive_scores, section.num_negatives, MARGINS),
        "suspects": _suspects(pairs, positive_scores, negatives, section.num_examples),
        "examples": _examples(pairs, positive_scores, negatives, section.num_examples, seed),
    }


def _suspects(pairs: Rows, positive_scores: np.ndarray, negatives: HardNegatives, number: int) -> Rows:
    """List the removed candidates that score furthest above the query's positive: likely answers without a label."""
    suspects = [
        (score - float(positive_scores[query]), query, row, score)
        for query, suspect in enumerate(negatives.suspects)
        if suspect is not None
        for row, score in [suspect]
    ]
    suspects.sort(key=lambda suspect: (-suspect[0], suspect[1]))
    return [
        _pair(pairs, positive_scores, query) | {"suspect": pairs[row]["document"], "suspect_score": score}
        for _, query, row, score in suspects[:number]
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
