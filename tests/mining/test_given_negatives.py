"""The audit of explicit negatives, by hand-computed scores."""

import numpy as np
import pytest

from stages.mining.given_negatives import audit_given

VECTORS = {"far": [0.1, 0.0], "near": [0.9, 0.0], "document": [0.5, 0.0]}


def test_negatives_above_the_document_and_the_document_itself_are_named() -> None:
    pairs = [
        {"query": "q", "document": "document", "negatives": ["far", "near", "document"]},
        {"query": "r", "document": "document", "negatives": []},
        {"query": "s", "document": "document", "negatives": None},
    ]
    queries = np.array([[1.0, 0.0]] * 3)
    audit = audit_given(pairs, queries, np.full(3, 0.5), lambda texts: np.array([VECTORS[t] for t in texts]), 5)
    assert (audit["given_negatives"], audit["given_above_document"], audit["given_own_text"]) == (3, 1, 1)
    assert [(one["negative"], one["used"]) for one in audit["contradictions"]] == [("near", True), ("document", False)]
    assert audit["contradictions"][0]["negative_score"] == pytest.approx(0.9)


def test_without_negatives_nothing_is_counted_and_no_vector_is_read() -> None:
    pairs = [{"query": "q", "document": "d", "negatives": []}]
    audit = audit_given(pairs, np.ones((1, 2)), np.ones(1), lambda _: pytest.fail("read"), 5)
    assert audit == {"given_negatives": 0, "given_above_document": 0, "given_own_text": 0, "contradictions": []}
