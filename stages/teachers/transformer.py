"""A backbone with a pooling as teacher, through the project's own encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from stages.modeling.backbones import take_length
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder, place
from stages.modeling.pooling import Pooling
from stages.modeling.tokenization import ensure_end_of_sequence, load_tokenizer
from stages.modeling.truncation import encode_windows, whole_lengths
from stages.teachers.fingerprint import teacher_identity
from stages.teachers.vector_store import Identity, Reading


@dataclass
class TransformerTeacher:
    """A model folder or hub id with its pooling.

    Args:
        max_tokens: of a text that is read at once.
        window_tokens: of a text that is read in windows; None where none is.
        threads: of the CPU; they decide how texts are batched, and so a vector's last bits.
    """

    path: str
    pooling: Pooling
    instructions: tuple[str, ...]
    max_tokens: int
    window_tokens: int | None
    precision: str
    packing: bool
    threads: int
    batch_tokens: int

    @cached_property
    def identity(self) -> Identity:
        """Digests of weights and tokenizer, pooling and precision."""
        return teacher_identity(self.path, self.pooling, self.precision)

    def embed(self, texts: Sequence[str], reading: Reading) -> np.ndarray:
        """Unit vectors [N, T] float32 of texts, longer ones in windows.

        Raises:
            ValueError: the backbone has fewer positions than a text may have tokens.
        """
        cut = (reading.max_tokens, reading.window_tokens)
        return encode_windows(self._encoder, texts, reading.instruction, *cut, self.batch_tokens)

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int]:
        """Tokens of each whole text behind an instruction."""
        return whole_lengths(self._tokenizer, [instruction + text for text in texts])

    @cached_property
    def _encoder(self) -> Encoder:
        """On this process's device; its sides are named by their instructions."""
        torch.set_num_threads(self.threads)
        prompts = {instruction: instruction for instruction in self.instructions}
        encoder = load_encoder(self.path, EncoderSettings(self.pooling, prompts, self.max_tokens))
        if self.window_tokens is not None:
            take_length(encoder.backbone, self.window_tokens)
        return place(encoder, precision=self.precision, packing=self.packing)

    @cached_property
    def _tokenizer(self) -> object:
        tokenizer = load_tokenizer(self.path)
        if self.pooling == "last":
            ensure_end_of_sequence(tokenizer)
        return tokenizer
