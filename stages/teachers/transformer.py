"""A backbone with a pooling as teacher, through the project's own encoder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.corpus.vectors import Identity, Reading
from stages.modeling.backbones import take_length
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder, place
from stages.modeling.identity import teacher_identity
from stages.modeling.pooling import Pooling
from stages.modeling.truncation import encode_windows, token_counts


@dataclass(frozen=True)
class TransformerTeacher:
    """An encoder whose sides are named by their instructions."""

    encoder: Encoder
    identity: Identity
    batch_tokens: int

    def embed(self, texts: Sequence[str], reading: Reading) -> np.ndarray:
        """Unit vectors [N, T] float32 of texts, longer ones in windows."""
        cut = (reading.max_tokens, reading.window_tokens)
        return encode_windows(self.encoder, texts, reading.instruction, *cut, self.batch_tokens)

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int]:
        """Tokens of each whole text."""
        return token_counts(self.encoder, texts, instruction)


def load_transformer(
    location: str,
    pooling: Pooling,
    *,
    instructions: Iterable[str],
    max_tokens: int,
    window_tokens: int | None,
    precision: str,
    packing: bool,
    threads: int,
    batch_tokens: int,
) -> TransformerTeacher:
    """Load a teacher onto this process's device.

    Args:
        max_tokens: of a text that is read at once.
        window_tokens: of a text that is read in windows; None where none is.
        threads: of the CPU; they decide how texts are batched, and so a vector's last bits.

    Raises:
        ValueError: the backbone has fewer positions than that.
    """
    torch.set_num_threads(threads)
    prompts = {instruction: instruction for instruction in instructions}
    encoder = load_encoder(location, EncoderSettings(pooling, prompts, max_tokens))
    if window_tokens is not None:
        take_length(encoder.backbone, window_tokens)
    place(encoder, precision=precision, packing=packing)
    return TransformerTeacher(encoder, teacher_identity(location, pooling, precision), batch_tokens)
