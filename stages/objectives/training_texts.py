"""The texts of an objective: tokenised once, with their teacher vectors beside them.

Shapes: N texts, T teacher dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens


@dataclass(frozen=True)
class TrainingTexts:
    """N tokenised texts, with teacher vectors [N, T] float16 where an objective distils.

    >>> texts = TrainingTexts.of(encoder, ["first text", "second text"], "query", max_tokens=32)
    >>> texts[[1]]  # the token ids of the second text
    """

    tokens: Tokens
    teacher: Tensor | None = None

    @classmethod
    def of(
        cls, encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, teacher: np.ndarray | None = None
    ) -> "TrainingTexts":
        """Tokenise texts for a side of the encoder, cut at `max_tokens`."""
        return cls(encoder.tokenize(texts, side, max_tokens), None if teacher is None else torch.from_numpy(teacher))

    @classmethod
    def joined(cls, parts: Sequence["TrainingTexts"]) -> "TrainingTexts":
        """Join the texts of several parts in order, with their teacher vectors where they have them."""
        teachers = [part.teacher for part in parts if part.teacher is not None]
        return cls(Tokens.joined([part.tokens for part in parts]), torch.cat(teachers) if teachers else None)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, [N]."""
        return self.tokens.lengths

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> Tokens:
        """Return the token ids of some texts."""
        return self.tokens.select(rows)

    def targets(self, rows: Sequence[int] | np.ndarray, device: torch.device) -> Tensor:
        """Return the teacher vectors [len(rows), T] float32 of some texts."""
        assert self.teacher is not None, "these texts carry no teacher vectors"
        return self.teacher[torch.as_tensor(rows)].float().to(device)

    def halves(self) -> tuple["TrainingTexts", "TrainingTexts"]:
        """Split texts that are queries [N / 2], then their documents [N / 2], into the two sides."""
        middle = len(self) // 2
        first, second = (
            TrainingTexts(self.tokens[part], None if self.teacher is None else self.teacher[part])
            for part in (slice(middle), slice(middle, None))
        )
        return first, second


Sides = tuple[TrainingTexts, TrainingTexts]  # both texts of each pair: queries and documents, or left and right texts
