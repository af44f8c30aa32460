"""The audit of explicit negatives: those that the teacher finds nearer to the query than the query's own document.

Shapes: Q pairs, T teacher dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Pairs = Sequence[Mapping[str, Any]]


def audit_given(
    pairs: Pairs,
    queries: np.ndarray,
    positive_scores: np.ndarray,
    vectors_of: Callable[[list[str]], np.ndarray],
    num_examples: int,
) -> dict[str, Any]:
    """Count the explicit negatives of a source's pairs, and list those that contradict their pair.

    People's negatives are trusted: one above the document is trained on, but shown. One that is the document, or the
    query, is not.

    Args:
        queries: the teacher's vectors [Q, T] of the queries.
        positive_scores: the teacher's similarity [Q] of each query and its document.
        vectors_of: gives the teacher's vectors of documents.

    Returns:
        given_negatives, given_above_document and given_own_text: numbers of negatives; and contradictions: examples of
        the latter two, furthest above their document first.
    """
    rows = [row for row, pair in enumerate(pairs) for _ in pair["negatives"] or []]
    texts = [text for pair in pairs for text in pair["negatives"] or []]
    counts = {"given_negatives": len(texts), "given_above_document": 0, "given_own_text": 0}
    if not texts:
        return counts | {"contradictions": []}
    scores = np.einsum("nt,nt->n", queries[rows], vectors_of(texts).astype(np.float32))
    own_texts = [(pairs[row]["query"], pairs[row]["document"]) for row in rows]
    is_own = np.array([text in own for text, own in zip(texts, own_texts, strict=True)])
    above = (scores > positive_scores[rows]) & ~is_own
    shown = np.flatnonzero(is_own | above)
    shown = shown[np.argsort(positive_scores[rows][shown] - scores[shown], kind="stable")][:num_examples]
    return counts | {
        "given_above_document": int(above.sum()),
        "given_own_text": int(is_own.sum()),
        "contradictions": [
            {
                "query": pairs[rows[at]]["query"],
                "document": pairs[rows[at]]["document"],
                "score": float(positive_scores[rows[at]]),
                "negative": texts[at],
                "negative_score": float(scores[at]),
                "used": not is_own[at].item(),
            }
            for at in shown.tolist()
        ],
    }
