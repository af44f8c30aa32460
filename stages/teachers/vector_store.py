"""A content-addressed store of teacher vectors.

The key of a vector is a hash of the teacher's fingerprint, the rule by which it read the text, and the text. The side
of a pair is in the key through its instruction: two sides with the same instruction share a vector, unless the teacher
reads sides with different weights; then the side itself is in the key. The store has no index: each shard is in order
of key, so that opening a store maps its files and a lookup reads the rows that it finds.

Shapes: N texts, T teacher dimension.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stages.teachers.fingerprint import Fingerprint
from stages.teachers.shards import KEY, Shard, packed_keys, write_shard
from stages.teachers.teacher import ROUTED, ReadingRule

MANIFEST = "manifest.json"
SHARD_ROWS = 65_536


class VectorStore:
    """A folder of shards and a manifest with the fingerprint of the teacher whose vectors they hold.

    >>> store = VectorStore(Path("data/embedded"))
    >>> vectors = store.vectors_of(ReadingRule("query: ", 512, 512), ["how is whisky distilled?"])  # [1, T] float16

    Raises:
        ValueError: the folder holds vectors of another teacher or a damaged shard; or `fingerprint` is None and the
            folder holds no store.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint | None = None) -> None:
        self.folder = folder
        self.fingerprint = _open_manifest(folder, fingerprint)
        self._fingerprint_json = json.dumps(self.fingerprint, sort_keys=True)
        self._shards = [Shard(path) for path in sorted(folder.glob("*.safetensors"))]

    def key(self, rule: ReadingRule, text: str) -> bytes:
        """Return the key of a text that is read by a rule."""
        side = (rule.side,) if self.fingerprint.get(ROUTED) else ()
        parts = (self._fingerprint_json, *side, str(rule.max_tokens), str(rule.window_tokens), rule.instruction, text)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=KEY.itemsize).digest()

    def keys(self, rule: ReadingRule, texts: Iterable[str]) -> np.ndarray:
        """Return the keys [N] of texts that are read by one rule."""
        return packed_keys([self.key(rule, text) for text in texts])

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    @property
    def dimensions(self) -> int:
        """T; 0 of an empty store."""
        return self._shards[0].dimensions if self._shards else 0

    def all_keys(self) -> np.ndarray:
        """Return every key, in any order."""
        return np.concatenate([packed_keys([]), *(shard.keys for shard in self._shards)])

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Tell for each key [N] whether it has a vector here."""
        distinct, inverse = np.unique(keys, return_inverse=True)
        held = np.zeros(len(distinct), dtype=bool)
        for shard in self._shards:
            held[shard.find(distinct)[0]] = True
        return held[inverse]

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Write vectors [N, T] as one shard; a killed process leaves whole shards only.

        Raises:
            ValueError: a vector is not finite, or has other dimensions than those before.
        """
        if self.dimensions not in (0, vectors.shape[1]):
            raise ValueError(f"{self.folder}: got vectors of {vectors.shape[1]} dimensions, expected {self.dimensions}")
        with np.errstate(over="ignore"):  # Values too large for float16 become infinite, and are refused.
            stored = vectors.astype(np.float16)
        if not np.isfinite(stored).all():
            raise ValueError("the teacher gave a vector that is not finite; check its weights and precision")
        self._shards.append(write_shard(self.folder, keys, stored))

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Read vectors [N, T] float16 in the order of the keys.

        Raises:
            KeyError: some keys have no vector; the message says how many.
            ValueError: a shard is damaged.
        """
        distinct, inverse = np.unique(keys, return_inverse=True)
        held = np.zeros(len(distinct), dtype=bool)
        vectors = np.empty((len(distinct), self.dimensions), dtype=np.float16)
        for shard in self._shards:
            positions, rows = shard.find(distinct)
            if len(rows):  # Reading from a shard checks all of it.
                vectors[positions] = shard.vectors(rows)
                held[positions] = True
        if missing := int((~held[inverse]).sum()):
            for shard in self._shards:  # A damaged key may be the reason.
                shard.check()
            raise KeyError(f"{self.folder}: {missing} of {len(keys)} texts have no teacher vector; run the embed stage")
        return vectors[inverse]

    def vectors_of(self, rule: ReadingRule, texts: Sequence[str]) -> np.ndarray:
        """Read the vectors [N, T] float16 of texts that are read by one rule; raises like `lookup`."""
        return self.lookup(self.keys(rule, texts))

    def export(self, keys: np.ndarray, folder: Path, shard_rows: int = SHARD_ROWS) -> None:
        """Copy the vectors of some keys to a new store in order of key: the same keys give the same bytes."""
        target = VectorStore(folder, self.fingerprint)
        for part in _parts(keys, shard_rows):
            target.add(part, self.lookup(part))

    def compact(self, shard_rows: int = SHARD_ROWS) -> None:
        """Merge shards of fewer rows into shards of `shard_rows`; the small ones are deleted last."""
        small = [shard for shard in self._shards if len(shard) < shard_rows]
        if len(small) > 1:
            self._replace(small, np.concatenate([shard.keys for shard in small]), shard_rows)

    def delete_except(self, keys: np.ndarray, shard_rows: int = SHARD_ROWS) -> int:
        """Rewrite the vectors of these keys, then delete all others; return how many were deleted."""
        before, left = len(self), np.unique(keys[self.holds(keys)])
        if len(left) < before:
            self._replace(self._shards, left, shard_rows)
        return before - len(self)

    def _replace(self, shards: list[Shard], keys: np.ndarray, shard_rows: int) -> None:
        """Write the vectors of some keys as new shards, then delete shards."""
        written = [write_shard(self.folder, part, self.lookup(part)) for part in _parts(keys, shard_rows)]
        for path in {shard.path for shard in shards} - {shard.path for shard in written}:
            path.unlink()
        self._shards = [*(shard for shard in self._shards if shard not in shards), *written]


def _parts(keys: np.ndarray, rows: int) -> list[np.ndarray]:
    """Distinct keys in ascending order, `rows` at a time."""
    distinct = np.unique(keys)
    return [distinct[start : start + rows] for start in range(0, len(distinct), rows)]


def _open_manifest(folder: Path, fingerprint: Fingerprint | None) -> Fingerprint:
    """Read the manifest, or write it where there is none, and compare it with the fingerprint."""
    manifest = folder / MANIFEST
    if manifest.exists():
        stored = dict(json.loads(manifest.read_text(encoding="utf-8")))
        if fingerprint is not None and stored != dict(fingerprint):
            changed = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
            raise ValueError(f"{folder} holds vectors of another teacher: {changed} differ; use another folder")
        return stored
    if fingerprint is None:
        raise ValueError(f"{folder} holds no vector store (no {MANIFEST}); run the embed stage")
    folder.mkdir(parents=True, exist_ok=True)
    partial = manifest.with_suffix(".partial")
    partial.write_text(json.dumps(dict(fingerprint), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.rename(manifest)
    return dict(fingerprint)
