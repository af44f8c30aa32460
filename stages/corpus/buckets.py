"""Items by 64-bit key on disk: which items share a key, found a part at a time, so that memory does not grow with them.

Two texts share a key by chance once in 2^64 pairs: at 10^8 texts, in one such set in four thousand.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

PART_BITS = 6
NUM_PARTS = 2**PART_BITS
ENTRY = np.dtype([("key", "<u8"), ("item", "<u8")])
# Entries held before they are written to their parts.
HELD = 2**17


class Buckets:
    """Items under keys; made of entries that are added in any order, read part by part."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._files = [folder / f"{part:02}.bin" for part in range(NUM_PARTS)]
        self._held: list[np.ndarray] = []
        self._num_held = 0

    def add(self, keys: np.ndarray, items: np.ndarray) -> None:
        """Put items [N] under keys uint64 [N]."""
        entries = np.empty(len(keys), dtype=ENTRY)
        entries["key"], entries["item"] = keys, items
        self._held.append(entries)
        self._num_held += len(entries)
        if self._num_held >= HELD:
            self._write()

    def shared(self) -> Iterator[np.ndarray]:
        """Entries, sorted by key and item, whose key others have too; those of a key come together in one part."""
        self._write()
        for file in self._files:
            if file.exists():
                entries = np.fromfile(file, dtype=ENTRY)
                # By columns: np.sort(order=...) compares entry by entry.
                entries = entries[np.lexsort((entries["item"], entries["key"]))]
                same = entries["key"][1:] == entries["key"][:-1]
                yield entries[np.concatenate(([False], same)) | np.concatenate((same, [False]))]

    def _write(self) -> None:
        if not self._held:
            return
        entries = np.concatenate(self._held)
        part = entries["key"] >> np.uint64(64 - PART_BITS)
        for number in np.unique(part):
            with self._files[int(number)].open("ab") as stream:
                entries[part == number].tofile(stream)
        self._held, self._num_held = [], 0


def matches(held: np.ndarray, sought: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in sorted keys [H] of those that equal a sought one [N], in turn [M]; how many equal each [N]."""
    first, last = (np.searchsorted(held, sought, side=side) for side in ("left", "right"))
    times = last - first
    steps = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.repeat(first, times) + steps, times


def numbered(*columns: np.ndarray) -> np.ndarray:
    """Groups [I] of sorted entries that agree in every column, numbered from 0."""
    if len(columns[0]) == 0:
        return np.empty(0, dtype=np.int64)
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.concatenate(([0], np.cumsum(changes)))


def first_of(group: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Place of the first chosen entry of every group, -1 where it has none."""
    first = np.full(int(group.max(initial=-1)) + 1, -1)
    places = np.flatnonzero(chosen)[::-1]
    first[group[places]] = places  # the last assignment to a group is its first entry
    return first
