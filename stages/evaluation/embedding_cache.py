"""Vectors of evaluated texts on disk, so that an evaluation embeds only what no earlier one did.

Shapes: N texts, D embedding dimension.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

from stages import modeling
from stages.tracking.runs import digest

Embed = Callable[[Sequence[str], str], np.ndarray]
# Vectors that no evaluation asked for in so long are forgotten.
DAYS = 30
CHECKSUM_BYTES = hashlib.sha256().digest_size


class KeptVectors:
    """Keeps what models give, by all that decides it: the model, the code that reads it, libraries, threads, texts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = (digest(Path(modeling.__path__[0])), torch.__version__, transformers.__version__)

    def by(self, embed: Embed, *model: str) -> Embed:
        """The same function, which computes only what is not kept.

        Args:
            embed: gives vectors [N, D] of texts of a side.
            model: digests and settings that tell the model, as it is read, from any other.
        """

        def kept(texts: Sequence[str], side: str) -> np.ndarray:
            decides = [*self._reader, torch.get_num_threads(), *model, side, *texts]
            file = self._folder / f"{hashlib.sha256(json.dumps(decides).encode()).hexdigest()}.npy"
            vectors = _read(file)
            if vectors is None:
                vectors = embed(texts, side)
                _write(file, vectors)
            return vectors

        return kept

    def forget_unused(self) -> None:
        """Delete what was not asked for in a month."""
        for file in self._folder.glob("*.npy"):
            if time.time() - file.stat().st_mtime > DAYS * 86400:
                file.unlink(missing_ok=True)  # another evaluation may have done so


def _read(file: Path) -> np.ndarray | None:
    """What is kept there; None where nothing is, or something else than was written."""
    try:
        content = file.read_bytes()
        os.utime(file)
    except FileNotFoundError:
        return None
    checksum, array = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
    if hashlib.sha256(array).digest() != checksum:
        return None
    vectors: np.ndarray = np.load(io.BytesIO(array), allow_pickle=False)
    return vectors


def _write(file: Path, vectors: np.ndarray) -> None:
    """Its checksum before it, written beside and renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    array = io.BytesIO()
    np.save(array, vectors, allow_pickle=False)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(hashlib.sha256(array.getvalue()).digest() + array.getvalue())
    partial.replace(file)
