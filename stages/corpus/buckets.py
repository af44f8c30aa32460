"""Items under 64-bit keys: `Buckets` on disk finds items that share a key, `KeyIndex` in memory looks keys up.

Two texts share a key by chance once in 2^64 pairs: at 10^8 texts, in one such set in four thousand.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

PART_BITS = 6
ITEM = (("item", "<u8"),)
# Entries held in memory before they are written to their parts.
HELD_ENTRIES = 2**17


class Buckets:
    """Entries of a key and other columns: added in any order, read in 64 parts, so that memory does not grow with them.

    Args:
        columns: name and type of the columns beside `key`, in the order in which entries of one key are sorted.
    """

    def __init__(self, folder: Path, columns: tuple[tuple[str, str], ...] = ITEM) -> None:
        folder.mkdir(parents=True)
        self._dtype = np.dtype([("key", "<u8"), *columns])
        self._files = [folder / f"{part:02}.bin" for part in range(2**PART_BITS)]
        self._held: list[np.ndarray] = []
        self._num_held = 0

    def add(self, keys: np.ndarray, *columns: np.ndarray | bool) -> None:
        """Add an entry for each of the keys uint64 [N], with its values in the other columns."""
        entries = np.empty(len(keys), dtype=self._dtype)
        for name, values in zip(self._dtype.names or (), (keys, *columns), strict=True):
            entries[name] = values
        self._held.append(entries)
        self._num_held += len(entries)
        if self._num_held >= HELD_ENTRIES:
            self._write()

    def shared(self) -> Iterator[np.ndarray]:
        """Yield the entries whose key other entries have too, sorted; all entries of a key are in one part."""
        self._write()
        for file in self._files:
            if file.exists():
                entries = np.fromfile(file, dtype=self._dtype)
                order = np.argsort(entries["key"])
                same = np.diff(entries["key"][order]) == 0
                shared = entries[order[np.concatenate(([False], same)) | np.concatenate((same, [False]))]]
                # By columns: np.sort(order=...) compares entry by entry.
                yield shared[np.lexsort([shared[name] for name in reversed(self._dtype.names or ())])]

    def _write(self) -> None:
        if not self._held:
            return
        entries = np.concatenate(self._held)
        part = entries["key"] >> np.uint64(64 - PART_BITS)
        for number in np.unique(part):
            with self._files[int(number)].open("ab") as stream:
                entries[part == number].tofile(stream)
        self._held, self._num_held = [], 0


class KeyIndex:
    """Values [N] by their keys uint64 [N], in memory; a key may have several values."""

    def __init__(self, keys: np.ndarray, values: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._values = keys[order], values[order]

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the keys [K] were found, and their values, match by match [M]."""
        first, last = (np.searchsorted(self._keys, keys, side=side) for side in ("left", "right"))
        counts = last - first
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(np.arange(len(keys)), counts), self._values[np.repeat(first, counts) + steps]


def group_numbers(*columns: np.ndarray) -> np.ndarray:
    """Number the groups of sorted entries [N] that agree in every column, from 0."""
    if len(columns[0]) == 0:
        return np.empty(0, dtype=np.int64)
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.concatenate(([0], np.cumsum(changes)))


def first_in_group(group: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Find for each entry [N] the position of the first chosen entry of its group; -1 where the group has none."""
    first = np.full(int(group.max(initial=-1)) + 1, -1)
    positions = np.flatnonzero(chosen)[::-1]
    first[group[positions]] = positions  # the last assignment to a group is its first entry
    return first[group]
