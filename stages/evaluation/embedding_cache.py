"""A cache on disk of the vectors of evaluated texts, so that an evaluation embeds only what no earlier one did.

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
from stages.tracking.digests import digest

# Texts and their side -> vectors [N, D].
Embed = Callable[[Sequence[str], str], np.ndarray]
# An entry that no evaluation used for this long is removed.
DAYS = 30
CHECKSUM_BYTES = hashlib.sha256().digest_size


class EmbeddingCache:
    """Keeps vectors under all that determines them: the model, the code that reads it, libraries, threads, texts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._code = (digest(Path(modeling.__path__[0])), torch.__version__, transformers.__version__)

    def cached(self, embed: Embed, *model: str) -> Embed:
        """Wrap a function so that it computes only what the cache lacks.

        Args:
            model: digests and settings that tell this model from any other.
        """

        def cached_embed(texts: Sequence[str], side: str) -> np.ndarray:
            key = [*self._code, torch.get_num_threads(), *model, side, *texts]
            file = self._folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.npy"
            vectors = _read(file)
            if vectors is None:
                vectors = embed(texts, side)
                _write(file, vectors)
            return vectors

        return cached_embed

    def remove_unused(self) -> None:
        """Delete entries that were not used for `DAYS`."""
        for file in self._folder.glob("*.npy"):
            if time.time() - file.stat().st_mtime > DAYS * 86400:
                file.unlink(missing_ok=True)  # another evaluation may have removed it


def _read(file: Path) -> np.ndarray | None:
    """Read an entry; None where there is none, or its content is not what was written."""
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
    """Write an entry behind its checksum, to another name first, so that no half-written one is read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    array = io.BytesIO()
    np.save(array, vectors, allow_pickle=False)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(hashlib.sha256(array.getvalue()).digest() + array.getvalue())
    partial.replace(file)
