"""Batches of token counts: sizes, sides, and sources that do not mix."""

import numpy as np
import pytest

from stages.planning import batches
from stages.planning.batches import batches_of_labelled, batches_of_pairs, batches_of_texts, batches_of_two_kinds


def test_texts_fill_a_token_budget_or_a_number() -> None:
    lengths = np.array([1, 2, 3, 4, 5, 6])
    by_size = batches_of_texts(lengths, None, 2, 1, "texts")
    assert sorted(np.concatenate(by_size).tolist()) == [1, 2, 3, 4, 5, 6]
    assert {len(batch) for batch in by_size} == {2}
    by_budget = batches_of_texts(lengths, 6, None, 1, "texts")
    assert sorted(np.concatenate(by_budget).tolist()) == [1, 2, 3, 4, 5, 6]
    assert all(len(batch) * max(batch) <= 6 for batch in by_budget)


def test_a_step_holds_pairs_of_one_source_and_its_negatives() -> None:
    queries, documents = [np.full(20, 1), np.full(20, 5)], [np.full(20, 2), np.full(20, 6)]
    steps = batches_of_pairs(queries, documents, [4, 3], [1.0, 1.0], ["one", "other"], seed=3, num_negatives=2)
    assert {tuple(step) for step in steps} == {(1,) * 4 + (2,) * 4 + (2,) * 8, (5,) * 3 + (6,) * 3 + (6,) * 6}


def test_two_kinds_of_pairs_in_their_share() -> None:
    left = np.full(1000, 1), np.full(1000, 2)
    right = np.full(1000, 3), np.full(1000, 4)
    steps = batches_of_two_kinds(left, right, size=2, share=0.25, seed=3, names=("scored", "pairs"))
    assert {tuple(step) for step in steps} == {(1, 1, 2, 2), (3, 3, 4, 4)}
    assert sum(step[0] == 1 for step in steps) / len(steps) == pytest.approx(0.25, abs=0.1)


def test_anchors_come_with_a_positive_and_negatives() -> None:
    steps = batches_of_labelled(np.full(9, 7), size=3, num_negatives=2, seed=3, name="texts")
    assert [step.tolist() for step in steps] == [[7] * 3 * 4] * 3


def test_only_some_steps_are_drawn_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "SAMPLED_STEPS", 5)
    assert len(batches_of_texts(np.ones(100, dtype=int), None, 2, 0, "texts")) == 5
