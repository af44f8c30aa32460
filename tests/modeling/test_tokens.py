"""Tokens as flat arrays: what a list of lists would give, in 4 bytes each."""

import numpy as np
import pytest

from stages.modeling.tokens import Tokens

LISTS = [[5, 6, 7], [], [8], [9, 10]]


@pytest.fixture
def tokens() -> Tokens:
    return Tokens.of(LISTS)


def lists(tokens: Tokens) -> list[list[int]]:
    return [ids.tolist() for ids in tokens]


def test_texts_come_back_as_they_went_in(tokens: Tokens) -> None:
    assert lists(tokens) == LISTS
    assert tokens.ids.dtype == tokens[0].dtype == np.int32
    assert tokens.lengths.tolist() == [3, 0, 1, 2]
    assert tokens[-1].tolist() == [9, 10]
    with pytest.raises(IndexError):
        tokens[4]
    with pytest.raises(OverflowError):
        Tokens.of([[2**31]])


def test_a_slice_views_the_texts_of_a_list_s_slice(tokens: Tokens) -> None:
    for part in (slice(1, 3), slice(2), slice(-2, None), slice(3, 1), slice(9), slice(None, None, 2)):
        assert lists(tokens[part]) == LISTS[part]
    assert np.shares_memory(tokens[2:].ids, tokens.ids)
    assert lists(tokens[2:][1:]) == [[9, 10]]


def test_rows_are_selected_in_any_order_and_number(tokens: Tokens) -> None:
    for rows in ([3, 0, 0, 1], [], [-1, 2]):
        assert lists(tokens.select(rows)) == [LISTS[row] for row in rows]
        assert tokens.select(np.array(rows, dtype=np.int64)).ids.dtype == np.int32
    assert lists(tokens[2:].select([1])) == [[9, 10]]
    with pytest.raises(IndexError):
        tokens.select([4])


def test_parts_are_joined_in_their_order(tokens: Tokens) -> None:
    assert lists(Tokens.joined([tokens[2:], Tokens.of([]), tokens[:1]])) == [[8], [9, 10], [5, 6, 7]]
