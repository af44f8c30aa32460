"""Contamination: texts of benchmarks that occur in the training text, exactly or nearly as MinHash estimates it.

The benchmarks' texts are held in memory by their keys and signatures, some 500 bytes each; the training texts, of which
there are many more, pass by once. Roles do not matter: a query has been seen where it was trained on as a document.

Shapes: H texts of benchmarks with a signature, P permutations, N training texts of a batch.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as arrow

from stages.corpus.buckets import KeyIndex
from stages.corpus.minhash import NUM_BANDS, NUM_PERMUTATIONS, bands, signatures, similarity
from stages.corpus.normalisation import normalise
from stages.corpus.roles import text_key
from stages.corpus.text_index import MIN_WORDS_OF_OTHER_ROLE
from stages.corpus.text_length import count_words
from stages.recipe.fields import TEXT_FIELDS

BATCH_ROWS = 2048
# All texts are in the same role.
ROLE = ""


def trained_texts(curated: Path) -> Iterator[list[str]]:
    """Yield every text of the train and dev rows of the curated folder, a batch at a time."""
    for kind, split in itertools.product(TEXT_FIELDS, ("train", "dev")):
        rows = arrow.dataset(curated / kind / f"{split}.parquet", format="parquet")
        for batch in rows.to_batches(columns=list(TEXT_FIELDS[kind]), batch_size=BATCH_ROWS):
            yield from (column.to_pylist() for column in batch.columns)


class Contamination:
    """Texts of benchmarks, to find the share of each benchmark that occurs in other texts.

    Args:
        jaccard: similarity of word shingles from which a text nearly repeats another.

    Example:
        >>> contamination = Contamination(0.8)
        >>> contamination.add("SciFact", ["a text of five or more words"])
        >>> contamination.shares(trained_texts(Path("data/curated")))
    """

    def __init__(self, jaccard: float) -> None:
        self._jaccard = jaccard
        self._keys: dict[str, set[int]] = {}  # of each benchmark's texts
        self._signed = [np.empty(0, dtype=np.uint64)]  # keys [H] of the texts with a signature
        self._signatures = [np.empty((0, NUM_PERMUTATIONS), dtype=np.uint16)]

    def add(self, benchmark: str, texts: Iterable[str]) -> None:
        """Add a benchmark's texts, each once and cleaned as training's are, but no names and phrases of few words."""
        cleaned = (normalise(text) for text in texts)
        by_key = {text_key(ROLE, text): text for text in cleaned if count_words(text) >= MIN_WORDS_OF_OTHER_ROLE}
        if not by_key:
            return
        new = sorted(by_key.keys() - set().union(*self._keys.values()))
        for start in range(0, len(new), BATCH_ROWS):
            keys = new[start : start + BATCH_ROWS]
            found, long = signatures([by_key[key] for key in keys], self._jaccard)
            self._signed.append(np.array(keys, dtype=np.uint64)[long])
            self._signatures.append(found[long])
        self._keys[benchmark] = set(by_key)

    def shares(self, batches: Iterable[Sequence[str]]) -> dict[str, float]:
        """Return for each benchmark with texts the share of them that occur in the batches of other texts.

        The batches are not read where no benchmark has texts.
        """
        if not self._keys:
            return {}
        near = _NearTexts(np.concatenate(self._signatures), self._jaccard)
        known: set[int] = set().union(*self._keys.values())
        seen: set[int] = set()
        for texts in batches:
            seen |= known.intersection(text_key(ROLE, text) for text in texts)
            near.compare(texts)
        seen.update(np.concatenate(self._signed)[near.found].tolist())
        return {benchmark: len(keys & seen) / len(keys) for benchmark, keys in self._keys.items()}


class _NearTexts:
    """Texts by the bands of their signatures [H, P]; `found` [H] says which were nearly the same as another text.

    In each batch and band they are compared with one text, the first, so that the work does not grow with the square.
    """

    def __init__(self, held: np.ndarray, jaccard: float) -> None:
        self._signatures, self._jaccard = held, jaccard
        self._index = KeyIndex(bands(held, ROLE).reshape(-1), np.repeat(np.arange(len(held)), NUM_BANDS))
        self.found = np.zeros(len(held), dtype=bool)

    def compare(self, texts: Sequence[str]) -> None:
        """Compare texts [N] with the held ones that share a band."""
        others, long = signatures(texts, self._jaccard)
        others = others[long]
        keys, first = np.unique(bands(others, ROLE).reshape(-1), return_index=True)
        positions, held = self._index.find(keys)
        rows = first[positions] // NUM_BANDS
        new = ~self.found[held]
        held, rows = held[new], rows[new]
        near = similarity(self._signatures, held, others, rows) >= self._jaccard
        self.found[held[near]] = True
