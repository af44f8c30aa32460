"""The teacher's vectors of curated texts, looked up by text.

Shapes: N texts, T teacher dimension.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.recipe.embed import Embed
from stages.teachers.shards import packed_keys
from stages.teachers.teacher import reading_rule
from stages.teachers.vector_store import VectorStore


class TeacherVectors:
    """The teacher's vectors in the store that the embed stage wrote.

    >>> teacher = TeacherVectors(EMBEDDED, recipe.embed)
    >>> vectors = teacher.of("query", ["how is whisky distilled?"], ["wikipedia"])  # [1, T] float16
    """

    def __init__(self, folder: Path, embed: Embed) -> None:
        self._store = VectorStore(folder)
        self._embed = embed

    def of(self, side: str, texts: Sequence[str], sources: Sequence[str]) -> np.ndarray:
        """Look up the vectors [N, T] float16 of texts read as `query`, `document` or `clustering`.

        Args:
            sources: name of each text's source.

        Raises:
            KeyError: some texts have no vector.
        """
        rules = {source: reading_rule(self._embed, side, source) for source in set(sources)}
        keys = [self._store.key(rules[source], text) for text, source in zip(texts, sources, strict=True)]
        return self._store.lookup(packed_keys(keys))
