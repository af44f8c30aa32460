"""Test texts that occur inside longer texts, found by shared runs of words.

PaLM was decontaminated so (arXiv 2204.02311): test examples were dropped where 70 % of their runs of 8 words stood in
the training text. In memory a test text costs 16 bytes a word; the texts searched are not kept.

Shapes: N texts, R runs, M matches.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from stages.corpus.buckets import KeyIndex
from stages.corpus.minhash import word_runs

RUN_WORDS = 8
# A run that more test texts hold is a common phrase, which identifies none of them.
MAX_HOLDERS = 64
# Bits of a run's hash that are looked up first: most runs are in no test text.
FILTER_BITS = 24


class ContainedTexts:
    """Runs of words of test texts, to find the texts that hold most of a test text's runs.

    Args:
        share: share of a test text's runs from which another text contains it.
        tests: batches of test texts [N] and their numbers [N]; texts shorter than a run are never found.
    """

    def __init__(self, share: float, tests: Iterable[tuple[Sequence[str], np.ndarray]]) -> None:
        found = [(runs, numbers[owners]) for texts, numbers in tests for runs, owners in [_distinct_runs(texts)]]
        runs = np.concatenate([np.empty(0, np.uint64), *(runs for runs, _ in found)])
        numbers = np.concatenate([np.empty(0, np.int64), *(numbers for _, numbers in found)])
        _, positions, holders = np.unique(runs, return_inverse=True, return_counts=True)
        rare = holders[positions] <= MAX_HOLDERS
        runs = runs[rare]
        self._tests, test, counts = np.unique(numbers[rare], return_inverse=True, return_counts=True)
        self._min_shared = np.maximum(1, np.ceil(share * counts))
        self._index = KeyIndex(runs, test)
        self._filter = np.zeros(2**FILTER_BITS, dtype=bool)
        self._filter[_leading_bits(runs)] = True

    def find(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the texts [N] contain a test text, and its number, match by match [M]."""
        runs, owners = _distinct_runs(texts)
        known = self._filter[_leading_bits(runs)]
        runs, owners = runs[known], owners[known]
        positions, tests = self._index.find(runs)
        pairs, shared = np.unique(owners[positions] * len(self._tests) + tests, return_counts=True)
        owner, test = np.divmod(pairs, max(1, len(self._tests)))
        enough = shared >= self._min_shared[test]
        return owner[enough], self._tests[test[enough]]


def _leading_bits(runs: np.ndarray) -> np.ndarray:
    return runs >> np.uint64(64 - FILTER_BITS)


def _distinct_runs(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct runs [R] of each text, and the position of the text that each is of [R]."""
    runs, offsets = word_runs(texts, RUN_WORDS)
    owners = np.repeat(np.arange(len(texts)), np.diff(offsets))
    order = np.lexsort((runs, owners))
    runs, owners = runs[order], owners[order]
    new = np.ones(len(runs), dtype=bool)
    new[1:] = (runs[1:] != runs[:-1]) | (owners[1:] != owners[:-1])
    return runs[new], owners[new]
