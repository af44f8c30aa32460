"""A content-addressed store of teacher vectors: add what is missing, look up by text, never the wrong teacher.

A vector's key is a hash of the teacher's identity, how it read the text, and the text. The side of a pair is in the key
through its instruction: two sides with the same instruction have the same vector.

Shapes: N texts, T teacher dimension, R rows of a shard.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

KEY_BYTES = 16
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
    """A folder of shards, each `keys` [R, 16] uint8 and `vectors` [R, T] float16, and a manifest of their origin.

    Raises:
        ValueError: the folder holds vectors of another teacher, or `identity` is None and there is no store.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str | int | bool] | None = None) -> None:
        self.folder = folder
        self.identity = _open_manifest(folder, identity)
        self._rows: dict[bytes, tuple[Path, int]] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            self._index(shard)

    def key(self, reading: Reading, text: str) -> bytes:
        """Address of the vector of a text that is read in some way."""
        how = (str(reading.max_tokens), str(reading.window_tokens), reading.instruction)
        parts = (json.dumps(self.identity, sort_keys=True), *how, text)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=KEY_BYTES).digest()

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Write a shard beside, flush it to disk and rename it: a killed process leaves whole shards only.

        Raises:
            ValueError: a vector is not finite.
        """
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused
            stored = vectors.astype(np.float16)
        if not np.isfinite(stored).all():
            raise ValueError("the teacher gave a vector that is not finite; check its weights and precision")
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)
        shard = self.folder / f"{hashlib.blake2b(packed.tobytes(), digest_size=KEY_BYTES).hexdigest()}.safetensors"
        partial = shard.with_suffix(".partial")
        save_file({"keys": packed.copy(), "vectors": stored}, partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(shard)
        self._index(shard)

    def lookup(self, keys: Sequence[bytes]) -> np.ndarray:
        """Vectors [N, T] float16 in the order of the keys.

        Raises:
            KeyError: some keys have no vector; says how many.
        """
        missing = sum(key not in self._rows for key in keys)
        if missing:
            raise KeyError(f"{self.folder}: {missing} of {len(keys)} texts have no teacher vector; run the embed stage")
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            shard, row = self._rows[key]
            by_shard.setdefault(shard, []).append((position, row))
        found: np.ndarray | None = None
        for shard, places in by_shard.items():
            with safe_open(shard, framework="numpy") as stored:
                vectors = stored.get_tensor("vectors")
            if found is None:
                found = np.empty((len(keys), vectors.shape[1]), dtype=np.float16)
            positions, rows = np.array(places).T
            found[positions] = vectors[rows]
        assert found is not None, "lookup of no keys"
        return found

    def texts(self, reading: Reading, texts: Sequence[str]) -> np.ndarray:
        """Vectors [N, T] float16 of texts read in one way; raises like `lookup`."""
        return self.lookup([self.key(reading, text) for text in texts])

    def export(self, keys: Iterable[bytes], folder: Path, shard_rows: int) -> None:
        """Copy the vectors of some keys to a new store, in order of key: the same keys give the same bytes."""
        target = VectorStore(folder, self.identity)
        ordered = sorted(set(keys))
        for start in range(0, len(ordered), shard_rows):
            part = ordered[start : start + shard_rows]
            target.add(part, self.lookup(part))

    def _index(self, shard: Path) -> None:
        with safe_open(shard, framework="numpy") as stored:
            keys = stored.get_tensor("keys")
        self._rows.update({row.tobytes(): (shard, position) for position, row in enumerate(keys)})


def _open_manifest(folder: Path, identity: Mapping[str, str | int | bool] | None) -> dict[str, str | int | bool]:
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
