"""Near duplicates by MinHash: texts as sets of word shingles, signatures that estimate the Jaccard similarity of two
sets, and bands of a signature as keys that similar texts are likely to share.

Shapes: N texts, P = 128 permutations, B = 16 bands of 8. Broder, On the resemblance and containment of documents, 1997.
A pair of similarity s shares a band with probability 1 - (1 - s^8)^16: 0.9999 at 0.9, 0.95 at 0.8, 0.06 at 0.5.
"""

import re
from collections.abc import Sequence

import numpy as np
import xxhash
from rensa import RMinHash

from stages.corpus.normalisation import folded
from stages.corpus.text_length import UNSPACED

NUM_PERMUTATIONS, NUM_BANDS = 128, 16
SHINGLE_WORDS = 3
# Pairs of signatures compared at once.
COMPARED_PAIRS = 2**16
_SEED = 17
# Letters of scripts that put no spaces between words stand alone.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
# Odd multipliers, from the golden ratio and from splitmix64.
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


def signatures(texts: Sequence[str], jaccard: float) -> tuple[np.ndarray, np.ndarray]:
    """Return signatures uint16 [N, P], and which texts [N] are long enough to be near another without being equal.

    A text of n shingles differs from its nearest other by one shingle at least, so their similarity is at most
    n / (n + 1): shorter texts than `jaccard` allows need no signature and get zeros.
    """
    words = [_words(text) for text in texts]
    min_shingles = jaccard / (1 - jaccard + 1e-9)
    long = np.array([len(of_text) - SHINGLE_WORDS + 1 >= min_shingles for of_text in words], dtype=bool)
    found = np.zeros((len(texts), NUM_PERMUTATIONS), dtype=np.uint16)
    if long.any():
        shingles, offsets = _runs([words[row] for row in np.flatnonzero(long)], SHINGLE_WORDS)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, offsets.astype(np.uint64), NUM_PERMUTATIONS, _SEED
        )
        found[long] = np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint16)
    return found, long


def bands(signatures: np.ndarray, role: str) -> np.ndarray:
    """Return keys uint64 [N, B] of the bands of signatures [N, P]; other roles and other bands have other keys."""
    salt = xxhash.xxh3_64_intdigest(role.encode())
    rows = np.ascontiguousarray(signatures).reshape(len(signatures), NUM_BANDS, 8).view(np.uint64)
    keys = (rows[..., 0] * _MIX[0]) ^ (rows[..., 1] * _MIX[1] + (rows[..., 1] >> np.uint64(29)))
    keys = (keys ^ (keys >> np.uint64(31))) * _MIX[2] + np.arange(NUM_BANDS, dtype=np.uint64) * _MIX[0]
    return (keys ^ np.uint64(salt)) * _MIX[1]


def similarity(left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
    """Estimate the Jaccard similarity [M] of signatures `left[left_rows]` and `right[right_rows]`, pair by pair.

    The standard error is at most 0.045. The signatures [N, P] may lie on disk; few pairs are read at once.
    """
    found = np.empty(len(left_rows))
    for start in range(0, len(left_rows), COMPARED_PAIRS):
        part = slice(start, start + COMPARED_PAIRS)
        found[part] = (left[left_rows[part]] == right[right_rows[part]]).mean(axis=1)
    return found


def word_runs(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes uint64 of every run of `size` words, text after text, and where each text's runs start [N + 1]."""
    return _runs([_words(text) for text in texts], size)


def _words(text: str) -> list[bytes]:
    return " ".join(_WORD.findall(folded(text))).encode().split()


def _runs(words: Sequence[Sequence[bytes]], size: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(of_text) for of_text in words], dtype=np.int64)
    total = int(lengths.sum())
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word) for text in words for word in text), np.uint64, count=total)
    runs = np.zeros(max(0, total - size + 1), dtype=np.uint64)
    for step in range(size):
        runs += hashes[step : step + len(runs)] * np.uint64(pow(int(_MIX[step % 3]), 1 + step // 3, 2**64))
    runs ^= runs >> np.uint64(32)
    counts = np.maximum(0, lengths - size + 1)
    # Runs that would reach into the next text are left out.
    starts = np.repeat(np.cumsum(lengths) - lengths, counts)
    positions = starts + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return runs[positions], np.concatenate(([0], np.cumsum(counts)))
