"""How the teacher of a recipe reads each text, and its vectors by text.

Shapes: N texts, T teacher dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stages.teachers.shards import packed_keys
from stages.teachers.vector_store import Reading, VectorStore


class LongTexts(Protocol):
    """The sources whose documents are read in windows, and how."""

    sources: tuple[str, ...]
    max_tokens: int
    window_tokens: int


@dataclass(frozen=True)
class Readings:
    """The recipe's prompt of each side, its cut, and its long sources."""

    prompts: Mapping[str, str]
    max_tokens: int
    long: LongTexts

    def of(self, side: str, source: str) -> Reading:
        """How a source's texts of a side are read: a long source's documents in windows, all else at once."""
        if side == "document" and source in self.long.sources:
            return Reading(self.prompts[side], self.long.max_tokens, self.long.window_tokens)
        return Reading(self.prompts[side], self.max_tokens, self.max_tokens)


class TeacherVectors:
    """The teacher's vectors of curated texts, from the store that the embed stage left."""

    def __init__(self, folder: Path, prompts: Mapping[str, str], max_tokens: int, long: LongTexts) -> None:
        self._store = VectorStore(folder)
        self._readings = Readings(prompts, max_tokens, long)

    def of(self, side: str, texts: Sequence[str], sources: Sequence[str]) -> np.ndarray:
        """Vectors [N, T] float16 of texts read as `query`, `document` or `clustering`; raises like `lookup`.

        Args:
            sources: name of each text's source.
        """
        readings = {source: self._readings.of(side, source) for source in set(sources)}
        keys = [self._store.key(readings[source], text) for text, source in zip(texts, sources, strict=True)]
        return self._store.lookup(packed_keys(keys))
