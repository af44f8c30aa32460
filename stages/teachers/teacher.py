"""What the embed stage asks of a teacher, whatever it is: vectors, token counts, and who it is.

Shapes: N texts, T teacher dimension.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stages.teachers.vector_store import Identity, Reading


class Teacher(Protocol):
    """A frozen model of text; light, and sent to other processes, until it embeds."""

    @property
    def identity(self) -> Identity:
        """All that decides its vectors, and a `digest` over it."""

    def embed(self, texts: Sequence[str], reading: Reading) -> np.ndarray:
        """Unit vectors [N, T] float32 of texts read in one way."""

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int] | None:
        """Tokens of each whole text behind an instruction; None where the teacher does not tell."""


@dataclass(frozen=True)
class Work:
    """Texts read in one way that are embedded together and become one working shard."""

    keys: np.ndarray
    reading: Reading
    texts: list[str]


def embed_here(teacher: Teacher, works: Iterable[Work]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Keys [N] and vectors [N, T] of each work, one after another in this process."""
    for work in works:
        yield work.keys, teacher.embed(work.texts, work.reading)
