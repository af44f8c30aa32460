"""A file of teacher vectors in order of their keys, mapped into memory: what is read of it is what is asked for.

Shapes: R rows of a shard, T teacher dimension, N keys.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# Keys are byte strings of one length, compared byte by byte.
KEY = np.dtype("S16")
CHECKSUM = "sha256"


class Shard:
    """A safetensors file with `keys` [R, 16] uint8, ascending, `vectors` [R, T] float16, and their checksum.

    Opening one reads its header. Shards of earlier versions have no checksum, and their keys are in any order.

    Raises:
        ValueError: the file is damaged: cut off, or not a shard at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                size = path.stat().st_size
                header = json.loads(file.read(length)) if length < size else {}
            self._tensors = {name: header[name] for name in ("keys", "vectors")}
            ends = [entry["data_offsets"][1] for entry in self._tensors.values()]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged("it has no header of a shard") from error
        self._start = 8 + length
        if size != self._start + max(ends):
            raise self._damaged(f"it has {size} bytes, expected {self._start + max(ends)}")
        self.checksum: str | None = header.get("__metadata__", {}).get(CHECKSUM)
        self._checked = self.checksum is None

    def __len__(self) -> int:
        return int(self._tensors["keys"]["shape"][0])

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in some ascending, distinct keys [N] of those that are here, and their rows.

        The fewer are looked for among the more, so that all shards together cost no more than their rows.
        """
        start, end = _between(keys, *self._ends)
        asked = keys[start:end]
        if len(asked) == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        first, last = _between(self.keys, asked[0], asked[-1])
        held = self.keys[first:last]
        if len(asked) <= len(held):
            places, rows = _matches(asked, held)
        else:
            rows, places = _matches(held, asked)
        return places + start, self._order[rows + first] if self._order is not None else rows + first

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Vectors [N, T] float16 of some rows; raises like `check`."""
        self.check()
        return self._mapped[rows]

    def check(self) -> None:
        """Hold keys and vectors against their checksum, once.

        Raises:
            ValueError: the file is damaged.
        """
        if not self._checked and _checksum(self._map("keys"), self._mapped) != self.checksum:
            raise self._damaged("its content has another checksum than when it was written")
        self._checked = True

    @property
    def dimensions(self) -> int:
        """T."""
        return int(self._tensors["vectors"]["shape"][1])

    @cached_property
    def _order(self) -> np.ndarray | None:
        """Rows in order of key, where that is not the order of the file."""
        return None if self.checksum else np.argsort(self._map("keys").view(KEY)[:, 0])

    @cached_property
    def keys(self) -> np.ndarray:
        """Keys [R], ascending, mapped."""
        keys = self._map("keys").view(KEY)[:, 0]
        return keys if self._order is None else keys[self._order]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.array(self.keys[[0, -1]])

    @cached_property
    def _mapped(self) -> np.ndarray:
        return self._map("vectors")

    def _map(self, name: str) -> np.ndarray:
        entry = self._tensors[name]
        dtype = {"U8": np.uint8, "F16": np.float16}[entry["dtype"]]
        offset = self._start + entry["data_offsets"][0]
        return np.memmap(self.path, dtype, "r", offset, tuple(entry["shape"])).view(np.ndarray)

    def _damaged(self, why: str) -> ValueError:
        return ValueError(
            f"{self.path} is damaged: {why}; delete this file and run the embed stage, which embeds its texts again"
        )


def write_shard(folder: Path, keys: np.ndarray, vectors: np.ndarray) -> Shard:
    """Write vectors [R, T] float16 under their keys [R], beside, flushed to disk and renamed: whole or not at all.

    The name is of the keys: the same rows are the same file.
    """
    order = np.argsort(keys)
    packed, vectors = keys[order].view(np.uint8).reshape(len(keys), KEY.itemsize), vectors[order]
    name = hashlib.blake2b(packed.tobytes(), digest_size=16).hexdigest()
    path = folder / f"{name}.safetensors"
    partial = path.with_suffix(".partial")
    save_file({"keys": packed, "vectors": vectors}, partial, {CHECKSUM: _checksum(packed, vectors)})
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(path)
    return Shard(path)


def packed_keys(keys: Sequence[bytes]) -> np.ndarray:
    """Keys [N] as an array."""
    return np.array(keys, dtype=KEY)


def _checksum(keys: np.ndarray, vectors: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(keys).data)
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()


def _between(keys: np.ndarray, least: np.bytes_, most: np.bytes_) -> tuple[int, int]:
    """Where the keys from `least` to `most` begin and end among ascending keys."""
    return int(np.searchsorted(keys, least, "left")), int(np.searchsorted(keys, most, "right"))


def _matches(fewer: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `fewer` and in `more` of the keys that are in both; each is ascending."""
    places = np.searchsorted(more, fewer)
    found = np.flatnonzero(more[np.minimum(places, len(more) - 1)] == fewer)
    return found, places[found]
