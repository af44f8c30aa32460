"""Which texts of benchmarks stand in what the build trained on: exactly, or nearly, as MinHash estimates it.

The benchmarks' texts are held, some 500 bytes each; the training texts, which are many more, pass by once. Roles do not
matter: a query has been seen where it was trained on as a document.

Shapes: H held texts, L of them with a signature, P permutations, B bands, N texts that pass by, M meetings.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as arrow

from stages.corpus.buckets import matches
from stages.corpus.cleaning import normalise
from stages.corpus.minhash import NUM_BANDS, NUM_PERMUTATIONS, bands, signatures, similarity, text_key
from stages.corpus.overlaps import COMPARED, TELLING_WORDS
from stages.corpus.text_length import count_words

# Of the kinds that phases train on: documents are for the long evaluation alone.
TRAINED = {"pairs": ("query", "document"), "scored": ("text_a", "text_b"), "labelled": ("text",)}
BATCH_ROWS = 2048
# All texts are in one role.
ROLE = ""


def trained_texts(curated: Path) -> Iterator[list[str]]:
    """Every text of the train and dev rows of the curated folder, a batch at a time."""
    for (kind, columns), split in itertools.product(TRAINED.items(), ("train", "dev")):
        rows = arrow.dataset(curated / kind / f"{split}.parquet", format="parquet")
        for batch in rows.to_batches(columns=list(columns), batch_size=BATCH_ROWS):
            yield from (column.to_pylist() for column in batch.columns)


class Contamination:
    """Texts of benchmarks, and what of each stands among other texts.

    Args:
        jaccard: of word shingles, from which a text stands nearly where another does.
    """

    def __init__(self, jaccard: float) -> None:
        self._jaccard = jaccard
        self._of_benchmark: dict[str, np.ndarray] = {}  # keys uint64, sorted
        self._held = np.empty(0, dtype=np.uint64)  # keys [H], sorted
        self._long: list[np.ndarray] = [np.empty(0, dtype=np.uint64)]  # keys of texts with a signature
        self._signatures: list[np.ndarray] = [np.empty((0, NUM_PERMUTATIONS), dtype=np.uint16)]

    def add(self, benchmark: str, texts: Iterable[str]) -> None:
        """Hold a benchmark's texts, each once and cleaned as training's are; names and phrases tell nothing."""
        cleaned = (normalise(text) for text in texts)
        by_key = {text_key(ROLE, text): text for text in cleaned if count_words(text) >= TELLING_WORDS}
        keys = np.sort(np.array(list(by_key), dtype=np.uint64))
        if len(keys) == 0:
            return
        new = np.setdiff1d(keys, self._held)
        for start in range(0, len(new), BATCH_ROWS):
            part = new[start : start + BATCH_ROWS]
            found, long = signatures([by_key[key] for key in part.tolist()], self._jaccard)
            self._long.append(part[long])
            self._signatures.append(found[long])
        self._of_benchmark[benchmark] = keys
        self._held = np.union1d(self._held, new)

    def shares(self, others: Iterable[Sequence[str]]) -> dict[str, float]:
        """The share of each benchmark's texts that stand among others; none of a benchmark without telling texts.

        Args:
            others: their batches; not begun where nothing is held.
        """
        if not self._of_benchmark:
            return {}
        near = _Near(np.concatenate(self._long), np.concatenate(self._signatures), self._jaccard)
        seen = np.zeros(len(self._held), dtype=bool)
        for texts in others:
            keys = np.array([text_key(ROLE, text) for text in texts], dtype=np.uint64)
            seen[matches(self._held, keys)[0]] = True
            near.pass_by(texts)
        seen[matches(self._held, near.met())[0]] = True
        return {
            benchmark: float(seen[matches(self._held, keys)[0]].mean())
            for benchmark, keys in self._of_benchmark.items()
        }


class _Near:
    """Held texts by the bands of their signatures, and which of them met a text that is nearly the same.

    In every batch and band they meet one text, the first, so that the work does not grow with the square of the texts.

    Args:
        keys: of the held texts [L].
        found: their signatures [L, P].
    """

    def __init__(self, keys: np.ndarray, found: np.ndarray, jaccard: float) -> None:
        self._keys, self._signatures, self._jaccard = keys, found, jaccard
        banded = bands(found, ROLE).reshape(-1)
        order = np.argsort(banded)
        self._bands, self._owners = banded[order], (order // NUM_BANDS).astype(np.uint32)
        self._met = np.zeros(len(keys), dtype=bool)

    def met(self) -> np.ndarray:
        """Keys of the held texts that are nearly the same as one that passed by."""
        return self._keys[self._met]

    def pass_by(self, texts: Sequence[str]) -> None:
        """Compare texts [N] with the held ones that share a band."""
        found, long = signatures(texts, self._jaccard)
        found = found[long]
        banded, first = np.unique(bands(found, ROLE).reshape(-1), return_index=True)
        places, times = matches(self._bands, banded)
        owners = self._owners[places]
        partners = np.repeat(first // NUM_BANDS, times)
        new = ~self._met[owners]
        owners, partners = owners[new], partners[new]
        for start in range(0, len(owners), COMPARED):
            left, right = owners[start : start + COMPARED], partners[start : start + COMPARED]
            self._met[left[similarity(self._signatures[left], found[right]) >= self._jaccard]] = True
