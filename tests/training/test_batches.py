"""Batches: every row once, within the budget, the same for the same seed and epoch."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stages.modeling.token_batches import token_budget_batches
from stages.training.batches import (
    GROUP_BATCHES,
    MixturePart,
    drawn_batches,
    mixed_batches,
    shuffled_batches,
    shuffled_token_batches,
    split_by_language,
)

LENGTHS = np.random.default_rng(0).integers(1, 120, size=1000).tolist()
Shuffled = Callable[[int, int], list[np.ndarray]]
SHUFFLED: dict[str, Shuffled] = {
    "tokens": lambda seed, epoch: shuffled_token_batches(LENGTHS, 256, seed, epoch),
    "rows": lambda seed, epoch: shuffled_batches(LENGTHS, 8, seed, epoch, "rows"),
}
each = pytest.mark.parametrize("make", SHUFFLED.values(), ids=list(SHUFFLED))


def flat(batches: list[np.ndarray]) -> list[int]:
    return np.concatenate(batches).tolist()


def padding(batches: list[np.ndarray]) -> float:
    """Share of a batch's cells that hold no token."""
    cells = sum(len(rows) * max(LENGTHS[row] for row in rows) for rows in batches)
    return 1 - sum(LENGTHS[row] for rows in batches for row in rows) / cells


def test_budget_batches_hold_every_row_once_longest_first() -> None:
    batches = list(token_budget_batches(LENGTHS, 256))
    assert sorted(flat(batches)) == list(range(1000))
    assert [LENGTHS[row] for row in flat(batches)] == sorted(LENGTHS, reverse=True)
    assert max(len(rows) * max(LENGTHS[row] for row in rows) for rows in batches) <= 256
    assert padding(batches) < 0.05


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    assert [rows.tolist() for rows in token_budget_batches([5, 300, 2, 280], 10)] == [[1], [3], [0, 2]]
    assert list(token_budget_batches([], 10)) == []


@each
def test_every_row_once_an_epoch(make: Shuffled) -> None:
    rows = flat(make(1, 0))
    assert sorted(rows) == list(range(1000))
    assert rows != sorted(rows)


@each
def test_seed_and_epoch_decide(make: Shuffled) -> None:
    first = flat(make(1, 0))
    assert flat(make(1, 0)) == first
    assert flat(make(1, 1)) != first
    assert flat(make(2, 0)) != first
    assert flat(make(0, 1)) != flat(make(1, 0))


@each
def test_like_lengths_together_and_batches_in_no_order(make: Shuffled) -> None:
    batches = make(1, 0)
    assert padding(batches) < 0.2
    mean = [np.mean([LENGTHS[row] for row in rows]) for rows in batches]
    assert abs(np.corrcoef(mean, np.arange(len(mean)))[0, 1]) < 0.5


def test_shuffled_token_batches_keep_their_budget() -> None:
    batches = SHUFFLED["tokens"](1, 0)
    assert max(len(rows) * max(LENGTHS[row] for row in rows) for rows in batches) <= 256


def test_shuffled_batches_are_of_one_size_and_leave_a_remainder_out() -> None:
    batches = shuffled_batches([1] * 1003, 8, 1, 0, "rows")
    assert {len(rows) for rows in batches} == {8}
    assert len(batches) == 125
    assert len(set(flat(batches))) == 1000
    assert GROUP_BATCHES * 8 < 1003, "more than one group is tested here"
    left_out = {
        frozenset(set(range(1003)) - set(flat(shuffled_batches([1] * 1003, 8, 1, epoch, "rows")))) for epoch in range(4)
    }
    assert len(left_out) == 4, "another epoch leaves others out"


def test_the_longest_rows_of_a_small_source_have_their_turn_too() -> None:
    lengths = list(range(250))
    seen = {row for epoch in range(20) for row in flat(shuffled_batches(lengths, 128, 1, epoch, "rows"))}
    assert seen == set(range(250))


def test_fewer_rows_than_a_batch_make_one_batch_with_a_warning() -> None:
    says = r"extend\.mixture faq: got 7 rows, fewer than the 8 of a batch \(batch_size x engine\.processes\); "
    with pytest.warns(UserWarning, match=says):
        assert sorted(flat(shuffled_batches([1] * 7, 8, 0, 0, "extend.mixture faq"))) == list(range(7))
    with pytest.warns(UserWarning, match=r"extend\.mixture help: got 7 rows"):
        assert len(drawn_batches([MixturePart("extend.mixture help", np.arange(7), 8, 1.0)], [1] * 7, 0, 0)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once, not at every epoch
        drawn_batches([MixturePart("extend.mixture help", np.arange(7), 8, 1.0)], [1] * 7, 0, 1)
    with pytest.raises(ValueError, match=r"extend\.mixture faq: got 1 rows, expected at least 2"):
        shuffled_batches([1], 8, 0, 0, "extend.mixture faq")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_mixed_batches_keep_the_share_and_each_lists_order(share: float) -> None:
    left, right = [np.array([n]) for n in range(40)], [np.array([100 + n]) for n in range(600)]
    mixed = mixed_batches((left, right), (share, 1 - share), 3, 0)
    assert len(mixed) == 640
    numbers = flat(mixed)
    from_left, from_right = [n for n in numbers if n < 100], [n for n in numbers if n >= 100]
    assert len(from_left) / 640 == pytest.approx(share, abs=0.06)
    assert from_left == [n % 40 for n in range(len(from_left))], "a list that runs out begins again"
    assert from_right == [100 + n % 600 for n in range(len(from_right))]
    if 0 < share < 1:
        assert flat(mixed_batches((left, right), (share, 1 - share), 3, 0)) == numbers
        assert flat(mixed_batches((left, right), (share, 1 - share), 3, 1)) != numbers


def test_drawn_batches_hold_one_source_in_its_own_size() -> None:
    """Two sources of other lengths: a step draws one, so length and batch size change with it."""
    parts = [MixturePart("one", np.arange(0, 400), 16, 3.0), MixturePart("other", np.arange(400, 460), 4, 1.0)]
    lengths = [8] * 400 + [500] * 60
    batches = drawn_batches(parts, lengths, 5, 0)
    sizes = {(len(rows), lengths[rows[0]]) for rows in batches}
    assert sizes == {(16, 8), (4, 500)}
    for rows in batches:
        assert len({int(row) < 400 for row in rows}) == 1
    long = sum(lengths[rows[0]] == 500 for rows in batches)
    assert len(batches) == 400 // 16 + 60 // 4
    assert long / len(batches) == pytest.approx(0.25, abs=0.15)
    again = drawn_batches(parts, lengths, 5, 0)
    assert [rows.tolist() for rows in again] == [rows.tolist() for rows in batches]


@pytest.mark.parametrize(("exponent", "share"), [(1.0, 900 / 1000), (0.5, 30 / 40), (0.0, 1 / 2)])
def test_languages_of_a_source_are_drawn_by_rows_to_the_exponent(exponent: float, share: float) -> None:
    languages = ["en-fr"] * 900 + ["en-he"] * 100 + ["en"] * 64
    sources = [MixturePart("one", np.arange(1000), 8, 3.0), MixturePart("other", np.arange(1000, 1064), 16, 1.0)]
    parts = split_by_language(sources, languages, exponent)
    assert [part.name for part in parts] == ["one (en-fr)", "one (en-he)", "other (en)"]
    assert [len(part.rows) for part in parts] == [900, 100, 64]
    assert [part.batch_size for part in parts] == [8, 8, 16]
    assert [part.weight for part in parts] == pytest.approx([3 * share, 3 * (1 - share), 1.0])
    batches = drawn_batches(parts, [1] * 1064, 5, 0)
    assert all(len({languages[row] for row in batch.tolist()}) == 1 for batch in batches)


def test_sources_of_one_language_are_drawn_as_ever() -> None:
    sources = [MixturePart("one", np.arange(64), 8, 2.0), MixturePart("other", np.arange(64, 96), 4, 1.0)]
    languages = ["en"] * 64 + ["de"] * 32
    for exponent in (None, 0.5):
        for part, source in zip(split_by_language(sources, languages, exponent), sources, strict=True):
            assert (part.rows == source.rows).all()
            assert (part.batch_size, part.weight) == (source.batch_size, source.weight)


def test_languages_of_few_rows_have_smaller_batches_and_those_of_one_row_none() -> None:
    source = MixturePart("one", np.arange(12), 8, 2.0)
    with pytest.warns(UserWarning, match="one: got one row of he, which is left out"):
        parts = split_by_language([source], ["en"] * 8 + ["fr"] * 3 + ["he"], 0.5)
    assert [part.name for part in parts] == ["one (en)", "one (fr)"]
    with pytest.warns(UserWarning, match=r"one \(fr\): got 3 rows, fewer than the 8 of a batch"):
        assert {len(rows) for epoch in range(9) for rows in drawn_batches(parts, [1] * 12, 5, epoch)} == {8, 3}
    with pytest.raises(ValueError, match=r"one: got one row of each language \(en, fr\)"):
        split_by_language([replace(source, rows=np.arange(2))], ["en", "fr"], 0.5)
