"""A shard: a file of teacher vectors in order of their keys, mapped into memory so that only what is asked for is read.

Shapes: R rows of a shard, T teacher dimension, N keys.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

# Keys are byte strings of one length, compared byte by byte.
KEY = np.dtype("S16")
CHECKSUM = "sha256"


class Shard:
    """A safetensors file with `keys` [R, 16] uint8, ascending, `vectors` [R, T] float16, and their checksum.

    Raises:
        ValueError: the file is damaged: cut off, or not a shard at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # The reader for PyTorch maps the file, where the reader for NumPy would copy all of it.
            with safe_open(path, "pt") as file:
                self.keys: np.ndarray = file.get_tensor("keys").numpy().view(KEY)[:, 0]
                self._vectors: np.ndarray = file.get_tensor("vectors").numpy()
                self._checksum: str = file.metadata()[CHECKSUM]
        except (SafetensorError, KeyError, TypeError) as error:
            raise self._damaged(str(error)) from error
        self._checked = False

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimensions(self) -> int:
        """T."""
        return int(self._vectors.shape[1])

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find which of some ascending, distinct keys [N] this shard holds.

        Returns:
            Positions in `keys` of the keys found, and their rows in this shard.
        """
        if len(keys) == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        asked, held = _common_range(keys, self.keys), _common_range(self.keys, keys)
        _, positions, rows = np.intersect1d(keys[asked], self.keys[held], assume_unique=True, return_indices=True)
        return positions + asked.start, rows + held.start

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Read the vectors [N, T] float16 of some rows; raises like `check`."""
        self.check()
        return self._vectors[rows]

    def check(self) -> None:
        """Compare keys and vectors with their checksum, once.

        Raises:
            ValueError: the file is damaged.
        """
        if not self._checked and _checksum(self.keys, self._vectors) != self._checksum:
            raise self._damaged("its content has another checksum than when it was written")
        self._checked = True

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.path} is damaged: {reason}; delete this file and run the embed stage, which embeds its texts again"
        )


def write_shard(folder: Path, keys: np.ndarray, vectors: np.ndarray) -> Shard:
    """Write vectors [R, T] float16 with their keys [R] as a whole file or not at all.

    The shard is written beside its final path, flushed to disk, and renamed. It is named by its keys, so that writing
    the same rows twice leaves one file.
    """
    order = np.argsort(keys)
    keys, vectors = keys[order], vectors[order]
    path = folder / f"{hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()}.safetensors"
    partial = path.with_suffix(".partial")
    packed = keys.view(np.uint8).reshape(len(keys), KEY.itemsize)
    save_file({"keys": packed, "vectors": vectors}, partial, {CHECKSUM: _checksum(keys, vectors)})
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(path)
    return Shard(path)


def packed_keys(keys: Sequence[bytes]) -> np.ndarray:
    """Pack keys into an array [N]."""
    return np.array(keys, dtype=KEY)


def _checksum(keys: np.ndarray, vectors: np.ndarray) -> str:
    digest = hashlib.sha256(keys.tobytes())
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()


def _common_range(keys: np.ndarray, others: np.ndarray) -> slice:
    """Where the keys from the first to the last of `others` are in `keys`; both are ascending."""
    return slice(int(np.searchsorted(keys, others[0], "left")), int(np.searchsorted(keys, others[-1], "right")))
