"""What the embed stage asks of every teacher, and the rule by which a teacher reads a text.

Shapes: N texts, T teacher dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from stages.recipe.embed import Embed
from stages.teachers.fingerprint import Fingerprint

# Field of a fingerprint that says that the teacher reads queries and documents with different weights, so that the side
# of a text is part of its key.
ROUTED = "routed"


@dataclass(frozen=True)
class ReadingRule:
    """How the teacher reads a text: its instruction, its cut, and the length of a window.

    The teacher reads the first `max_tokens` tokens. A text longer than `window_tokens` is read in consecutive windows,
    and its vector is the mean of theirs. The side matters only to a teacher that reads sides apart (`ROUTED`).
    """

    instruction: str
    max_tokens: int
    window_tokens: int
    side: str = field(default="document", compare=False)


def reading_rule(embed: Embed, side: str, source: str) -> ReadingRule:
    """Return the rule for a source's texts of a side; only documents of a long source are read in windows.

    Args:
        side: `query`, `document` or `clustering`.
    """
    if side == "document" and source in embed.long.sources:
        return ReadingRule(embed.prompts[side], embed.long.max_tokens, embed.long.window_tokens, side)
    return ReadingRule(embed.prompts[side], embed.max_tokens, embed.max_tokens, side)


class Teacher(Protocol):
    """A frozen embedding model, which is sent to other processes before it loads its weights to embed."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Everything that decides its vectors, with a `digest` over it."""

    def embed(self, texts: Sequence[str], rule: ReadingRule) -> np.ndarray:
        """Embed texts that are read by one rule; returns unit vectors [N, T] float32."""

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int] | None:
        """Count the tokens of each whole text behind an instruction; None where the teacher does not tell."""


def longest_input(embed: Embed) -> int:
    """Return the most tokens that the teacher reads at once: of a whole text, or of a window of a long one."""
    long = embed.long
    return max(embed.max_tokens, min(long.window_tokens, long.max_tokens) if long.sources else 0)
