"""Batches of texts by their number of tokens: texts of similar length together, so that little is padding."""

from collections.abc import Iterator, Sequence

import numpy as np

Lengths = Sequence[int] | np.ndarray  # tokens of each text


def token_budget_batches(lengths: Lengths, batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield batches with the longest texts first; rows x longest row stays within `batch_tokens` (one row always fits).

    >>> [rows.tolist() for rows in token_budget_batches([5, 300, 2, 280], batch_tokens=10)]
    [[1], [3], [0, 2]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    yield from cut_by_tokens(order, np.asarray(lengths), batch_tokens)


def cut_by_tokens(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Cut rows, sorted with the longest text first, into batches of at most `batch_tokens` padded tokens."""
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + rows]
        start += rows
