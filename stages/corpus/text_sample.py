"""A sample of very many texts, for statistics that need no more."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

Group = TypeVar("Group")


class TextSample(Generic[Group]):
    """Up to `most` distinct texts in memory, those with the lowest keys; all of them where there are fewer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = 2**64
        self._kept: dict[bytes, tuple[Group, str]] = {}

    def add(self, group: Group, keys: np.ndarray, texts: Sequence[str]) -> None:
        """Add texts of a group by their keys [N], which are spread evenly."""
        leading = keys.view(">u8")[::2]
        for row in np.flatnonzero(leading <= self._limit - 1).tolist():
            self._kept[keys[row]] = (group, texts[row])
        while len(self._kept) > self._most:
            self._limit //= 2
            self._kept = {key: kept for key, kept in self._kept.items() if _leading(key) < self._limit}

    def by_group(self) -> dict[Group, list[str]]:
        """Return the sampled texts of each group."""
        groups: dict[Group, list[str]] = {}
        for group, text in self._kept.values():
            groups.setdefault(group, []).append(text)
        return groups


def _leading(key: bytes) -> int:
    return int.from_bytes(key[:8].ljust(8, b"\0"), "big")
