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
class Texts:
    """N tokenised texts of one side, with teacher vectors [N, T] float16 where an objective distils."""

    tokens: Tokens
    teacher: Tensor | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, [N]."""
        return self.tokens.lengths

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> Tokens:
        """Token ids of some texts."""
        return self.tokens.select(rows)

    def targets(self, rows: Sequence[int] | np.ndarray, device: torch.device) -> Tensor:
        """Teacher vectors [len(rows), T] float32 of some texts."""
        assert self.teacher is not None, "these texts carry no teacher vectors"
        return self.teacher[torch.as_tensor(rows)].float().to(device)


def texts_of(
    encoder: Encoder, texts: Sequence[str], side: str, max_tokens: int, teacher: np.ndarray | None = None
) -> Texts:
    """Tokenise texts for a side of the encoder, cut at `max_tokens`."""
    return Texts(encoder.tokenize(texts, side, max_tokens), None if teacher is None else torch.from_numpy(teacher))


def joined(parts: Sequence[Texts]) -> Texts:
    """The texts of several sources one after another, with their teacher vectors where they have them."""
    teachers = [part.teacher for part in parts if part.teacher is not None]
    return Texts(Tokens.joined([part.tokens for part in parts]), torch.cat(teachers) if teachers else None)
