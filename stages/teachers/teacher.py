"""What the embed stage asks of a teacher, whatever it is: vectors, token counts, and who it is.

Shapes: N texts, T teacher dimension.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from stages.corpus.vectors import Identity, Reading


class Teacher(Protocol):
    """A frozen model of text."""

    @property
    def identity(self) -> Identity:
        """All that decides its vectors, and a `digest` over it."""

    def embed(self, texts: Sequence[str], reading: Reading) -> np.ndarray:
        """Unit vectors [N, T] float32 of texts read in one way."""

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int] | None:
        """Tokens of each whole text behind an instruction; None where the teacher does not tell."""
