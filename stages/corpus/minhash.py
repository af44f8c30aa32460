"""Near duplicates by MinHash: texts as sets of word shingles, signatures that estimate the sets' Jaccard similarity,
and bands of a signature as keys that similar texts are likely to share.

Shapes: N texts, P = 128 permutations, B = 16 bands of 8. Broder, On the resemblance and containment of documents, 1997.
A pair of similarity s shares a band with probability 1 - (1 - s^8)^16: 0.9999 at 0.9, 0.95 at 0.8, 0.06 at 0.5.
"""

import re
from collections.abc import Sequence

import numpy as np
import xxhash
from rensa import RMinHash

from stages.corpus.text_length import UNSPACED

NUM_PERMUTATIONS, NUM_BANDS = 128, 16
SHINGLE_WORDS = 3
_SEED = 17
# Letters of scripts that put no spaces between words stand alone.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
# Odd multipliers, from the golden ratio and from splitmix64.
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


def text_key(role: str, text: str) -> int:
    """64 bits of a text in a role, however it is capitalised."""
    return xxhash.xxh3_64_intdigest(f"{role}\0{text.casefold()}".encode())


def signatures(texts: Sequence[str], jaccard: float) -> tuple[np.ndarray, np.ndarray]:
    """Signatures uint16 [N, P] of texts, and which of them [N] are long enough to be near another without being equal.

    A text of n shingles differs from its nearest other by one shingle at least, so their similarity is at most
    n / (n + 1): shorter texts than `jaccard` allows need no signature.
    """
    words = [_words(text) for text in texts]
    long = np.array([len(one) - SHINGLE_WORDS + 1 >= jaccard / (1 - jaccard + 1e-9) for one in words], dtype=bool)
    found = np.zeros((len(texts), NUM_PERMUTATIONS), dtype=np.uint16)
    chosen = [one for one, is_long in zip(words, long, strict=True) if is_long]
    if chosen:
        shingles, offsets = _runs(chosen, SHINGLE_WORDS)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, offsets.astype(np.uint64), NUM_PERMUTATIONS, _SEED
        )
        found[long] = np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint16)
    return found, long


def bands(signatures: np.ndarray, role: str) -> np.ndarray:
    """Keys uint64 [N, B] of the bands of signatures [N, P]; other roles and bands have other keys."""
    salt = xxhash.xxh3_64_intdigest(role.encode())
    rows = np.ascontiguousarray(signatures).reshape(len(signatures), NUM_BANDS, 8).view(np.uint64)
    keys = (rows[..., 0] * _MIX[0]) ^ (rows[..., 1] * _MIX[1] + (rows[..., 1] >> np.uint64(29)))
    keys = (keys ^ (keys >> np.uint64(31))) * _MIX[2] + np.arange(NUM_BANDS, dtype=np.uint64) * _MIX[0]
    return (keys ^ np.uint64(salt)) * _MIX[1]


def similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity [N] of signatures [N, P] row by row; its standard error is at most 0.045."""
    agreeing: np.ndarray = (left == right).mean(axis=1)
    return agreeing


def word_runs(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint64 of every run of `size` words, text after text, and where each text's start [N + 1]."""
    return _runs([_words(text) for text in texts], size)


def _words(text: str) -> list[bytes]:
    return " ".join(_WORD.findall(text.casefold())).encode().split()


def _runs(words: Sequence[Sequence[bytes]], size: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(one) for one in words], dtype=np.int64)
    total = int(lengths.sum())
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word) for one in words for word in one), np.uint64, count=total)
    runs = np.zeros(max(0, total - size + 1), dtype=np.uint64)
    for step in range(size):
        runs += hashes[step : step + len(runs)] * np.uint64(pow(int(_MIX[step % 3]), 1 + step // 3, 2**64))
    runs ^= runs >> np.uint64(32)
    counts = np.maximum(0, lengths - size + 1)
    # Runs that would reach into the next text are left out.
    starts = np.repeat(np.cumsum(lengths) - lengths, counts)
    places = starts + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return runs[places], np.concatenate(([0], np.cumsum(counts)))
