"""A content-addressed store of teacher vectors: add what is missing, look up by text, never the wrong teacher.

A vector's key is a hash of the teacher's identity, how it read the text, and the text. The side of a pair is in the key
through its instruction: two sides with the same instruction have the same vector. There is no index beside the shards:
each is in order of key, so that opening a store reads their headers and a lookup the rows that it finds.

Shapes: N texts, T teacher dimension, R rows of a shard.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.teachers.shards import KEY, Shard, packed_keys, write_shard

Identity = Mapping[str, str | int | bool]
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Reading:
    """How the teacher reads a text: behind an instruction, so many tokens at a time, so many in all.

    A text longer than `window_tokens` is read in consecutive windows; its vector is their mean.
    """

    instruction: str
    max_tokens: int
    window_tokens: int


class VectorStore:
    """A folder of shards and a manifest of their origin.

    Raises:
        ValueError: the folder holds vectors of another teacher or a damaged shard, or `identity` is None and there is
            no store.
    """

    def __init__(self, folder: Path, identity: Identity | None = None) -> None:
        self.folder = folder
        self.identity = _open_manifest(folder, identity)
        self._named = json.dumps(self.identity, sort_keys=True)
        self._shards = [Shard(path) for path in sorted(folder.glob("*.safetensors"))]

    def key(self, reading: Reading, text: str) -> bytes:
        """Address of the vector of a text that is read in some way."""
        parts = (self._named, str(reading.max_tokens), str(reading.window_tokens), reading.instruction, text)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=KEY.itemsize).digest()

    def keys(self, reading: Reading, texts: Iterable[str]) -> np.ndarray:
        """Addresses [N] of texts that are read in one way."""
        return packed_keys([self.key(reading, text) for text in texts])

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    @property
    def dimensions(self) -> int:
        """T, of a store that is not empty."""
        return self._shards[0].dimensions

    def all_keys(self) -> np.ndarray:
        """Every key, in any order."""
        return np.concatenate([_NONE, *(shard.keys for shard in self._shards)])

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key [N] has a vector here."""
        distinct, place = np.unique(keys, return_inverse=True)
        held = np.zeros(len(distinct), dtype=bool)
        for shard in self._shards:
            held[shard.find(distinct)[0]] = True
        return held[place]

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Write a shard; a killed process leaves whole shards only.

        Raises:
            ValueError: a vector is not finite, or has other dimensions than those before.
        """
        if self._shards and vectors.shape[1] != self.dimensions:
            raise ValueError(f"{self.folder}: got vectors of {vectors.shape[1]} dimensions, expected {self.dimensions}")
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused
            stored = vectors.astype(np.float16)
        if not np.isfinite(stored).all():
            raise ValueError("the teacher gave a vector that is not finite; check its weights and precision")
        self._shards.append(write_shard(self.folder, keys, stored))

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Vectors [N, T] float16 in the order of the keys.

        Raises:
            KeyError: some keys have no vector; says how many.
            ValueError: a shard is damaged.
        """
        distinct, place = np.unique(keys, return_inverse=True)
        places = [shard.find(distinct) for shard in self._shards]
        held = np.zeros(len(distinct), dtype=bool)
        held[np.concatenate([np.empty(0, dtype=np.int64), *(found for found, _ in places)])] = True
        if missing := int((~held[place]).sum()):
            for shard in self._shards:  # whose damage may be why
                shard.check()
            raise KeyError(f"{self.folder}: {missing} of {len(keys)} texts have no teacher vector; run the embed stage")
        vectors = np.empty((len(distinct), self.dimensions), dtype=np.float16)
        for shard, (found, rows) in zip(self._shards, places, strict=True):
            if len(found):
                vectors[found] = shard.vectors(rows)
        return vectors[place]

    def texts(self, reading: Reading, texts: Sequence[str]) -> np.ndarray:
        """Vectors [N, T] float16 of texts read in one way; raises like `lookup`."""
        return self.lookup(self.keys(reading, texts))

    def export(self, keys: np.ndarray, folder: Path, shard_rows: int) -> None:
        """Copy the vectors of some keys to a new store, in order of key: the same keys give the same bytes."""
        target = VectorStore(folder, self.identity)
        ordered = np.unique(keys)
        for start in range(0, len(ordered), shard_rows):
            part = ordered[start : start + shard_rows]
            target.add(part, self.lookup(part))

    def compact(self, shard_rows: int) -> None:
        """Merge shards of fewer rows into ones of `shard_rows`, written before the small ones are deleted."""
        small = [shard for shard in self._shards if len(shard) < shard_rows]
        if len(small) < 2 and all(shard.checksum for shard in small):
            return
        self._replace(small, np.unique(np.concatenate([shard.keys for shard in small])), shard_rows)

    def keep(self, keys: np.ndarray, shard_rows: int) -> int:
        """Delete the vectors of all other keys; returns how many that were."""
        before, wanted = len(self), np.unique(keys)
        kept = [shard.find(wanted)[0] for shard in self._shards]
        partly = [number for number, shard in enumerate(self._shards) if len(kept[number]) < len(shard)]
        rest = [wanted[kept[number]] for number in partly]
        self._replace(
            [self._shards[number] for number in partly], np.unique(np.concatenate([_NONE, *rest])), shard_rows
        )
        return before - len(self)

    def _replace(self, shards: list[Shard], keys: np.ndarray, shard_rows: int) -> None:
        """Put new shards with some of their keys in the place of some shards."""
        others = [shard for shard in self._shards if shard not in shards]
        written = [
            write_shard(self.folder, part, self.lookup(part))
            for part in (keys[start : start + shard_rows] for start in range(0, len(keys), shard_rows))
        ]
        new = {shard.path for shard in written}
        for shard in shards:
            if shard.path not in new:
                shard.path.unlink()
        self._shards = [*others, *written]


_NONE = np.empty(0, dtype=KEY)


def _open_manifest(folder: Path, identity: Identity | None) -> dict[str, str | int | bool]:
    manifest = folder / MANIFEST
    if manifest.exists():
        stored = dict(json.loads(manifest.read_text(encoding="utf-8")))
        if identity is not None and stored != dict(identity):
            changed = sorted(key for key in {*stored, *identity} if stored.get(key) != identity.get(key))
            raise ValueError(f"{folder} holds vectors of another teacher: {changed} differ; use another folder")
        return stored
    if identity is None:
        raise ValueError(f"{folder} holds no vector store (no {MANIFEST}); run the embed stage")
    folder.mkdir(parents=True, exist_ok=True)
    partial = manifest.with_suffix(".partial")
    partial.write_text(json.dumps(dict(identity), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.rename(manifest)
    return dict(identity)
