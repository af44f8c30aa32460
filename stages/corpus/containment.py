"""Test texts that stand inside longer texts: shared runs of words, as in the decontamination of PaLM (arXiv
2204.02311), whose test examples were dropped where 70 % of their runs of 8 words stood in the training text.

In memory a test text costs 16 bytes a word; the others pass by. Shapes: N texts, R runs, M matches.
"""

from collections.abc import Sequence

import numpy as np

from stages.corpus.buckets import matches
from stages.corpus.minhash import word_runs

RUN_WORDS = 8
# A run that so many test texts hold is a phrase, and tells none of them.
COMMON = 64
# Bits of a run's hash that are looked up first: most runs are in no test text.
FILTER_BITS = 24


class Contained:
    """Runs of words of test texts, and which texts hold most of a test text's runs.

    Args:
        share: of a test text's runs, from which another text contains it.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._held: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, texts: Sequence[str], items: np.ndarray) -> None:
        """Test texts [N] under their items [N]; those of fewer words than a run are not looked for."""
        runs, owners = _distinct(texts)
        self._held.append((runs, items[owners]))

    def close(self) -> None:
        """All test texts are there."""
        runs, items = (np.concatenate([one[part] for one in self._held] or [np.empty(0)]) for part in (0, 1))
        order = np.argsort(runs, kind="stable")
        runs, items = runs[order].astype(np.uint64), items[order].astype(np.int64)
        _, place, holders = np.unique(runs, return_inverse=True, return_counts=True)
        telling = holders[place] <= COMMON
        self._runs, self._items = runs[telling], items[telling]
        self._wanted, wanted = np.unique(self._items, return_counts=True)
        self._least = np.maximum(1, np.ceil(self._share * wanted))
        self._filter = np.zeros(2**FILTER_BITS, dtype=bool)
        self._filter[self._runs >> np.uint64(64 - FILTER_BITS)] = True
        self._held = []

    def found(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Places in texts [N] that contain a test text, and its item, pair by pair [M]."""
        runs, owners = _distinct(texts)
        maybe = self._filter[runs >> np.uint64(64 - FILTER_BITS)]
        runs, owners = runs[maybe], owners[maybe]
        places, times = matches(self._runs, runs)
        # Of the runs that match, every test text that holds them.
        held = np.searchsorted(self._wanted, self._items[places])
        pairs, shared = np.unique(np.repeat(owners, times) * len(self._wanted) + held, return_counts=True)
        place, test = np.divmod(pairs, max(1, len(self._wanted)))
        enough = shared >= self._least[test]
        return place[enough], self._wanted[test[enough]]


def _distinct(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct runs [R] of each text, and whose they are."""
    runs, offsets = word_runs(texts, RUN_WORDS)
    owners = np.repeat(np.arange(len(texts)), np.diff(offsets))
    order = np.lexsort((runs, owners))
    runs, owners = runs[order], owners[order]
    again = np.concatenate(([False], (runs[1:] == runs[:-1]) & (owners[1:] == owners[:-1])))
    return runs[~again[: len(runs)]], owners[~again[: len(runs)]]
