"""Tokenised texts as two flat arrays: 4 bytes a token, of which a list of ints takes about 37.

Shapes: N texts, T tokens of all of them.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np


@dataclass(frozen=True, eq=False)
class Tokens(Sequence[np.ndarray]):
    """Token ids of N texts; a text and a slice of texts are views of them.

    Example:
        >>> Tokens.of([[5, 6], [7]]).lengths  # array([2, 1])
    """

    ids: np.ndarray  # [T] int32: the texts end to end
    offsets: np.ndarray  # [N + 1] int64: first token of each text, and T

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]]) -> "Tokens":
        """Collect texts whose ids come as lists, one list at a time.

        Raises:
            OverflowError: an id is beyond 32 bits.
        """
        ids, offsets = array("i"), array("q", [0])
        for text in texts:
            ids.extend(text)
            offsets.append(len(ids))
        return cls(np.asarray(ids), np.asarray(offsets))

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Join the texts of several parts, of which there is at least one."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.ids for part in parts]), _offsets(lengths))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, [N] int64."""
        return np.diff(self.offsets)

    def select(self, rows: Sequence[int] | np.ndarray) -> "Tokens":
        """Return the texts of some rows, in the order of the rows."""
        chosen = np.asarray(rows, dtype=np.int64)
        starts = self.offsets[:-1][chosen]
        lengths = self.offsets[1:][chosen] - starts
        offsets = _offsets(lengths)
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Tokens(self.ids[positions], offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, row: slice) -> "Tokens": ...
    def __getitem__(self, row: int | slice) -> "np.ndarray | Tokens":
        rows = range(len(self))[row]
        if isinstance(rows, int):
            return self.ids[self.offsets[rows] : self.offsets[rows + 1]]
        if rows.step != 1:
            return self.select(rows)
        offsets = self.offsets[rows.start : rows.start + len(rows) + 1]
        return Tokens(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths)))
