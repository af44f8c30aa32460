"""A backbone with a pooling as teacher, through the project's own encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from stages.corpus.locations import local_folder
from stages.modeling.backbones import take_length
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder, place
from stages.modeling.tokenization import ensure_end_of_sequence, load_tokenizer
from stages.modeling.truncation import encode_windows, whole_lengths
from stages.recipe.embed import Embed, TransformerFolder
from stages.recipe.engine import Engine
from stages.teachers.fingerprint import Fingerprint, teacher_fingerprint
from stages.teachers.module_files import check_plain_backbone, tell_unused_settings
from stages.teachers.teacher import ReadingRule, longest_input


@dataclass
class TransformerTeacher:
    """A model in the format of transformers, from a folder or the hub.

    The number of CPU threads decides how texts are batched, and so the last bits of a vector.
    """

    model: TransformerFolder
    section: Embed
    engine: Engine

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Digests of weights and tokenizer, pooling and precision."""
        check_plain_backbone(self.model.path, local_folder(self.model.path), self.model.pooling)
        return teacher_fingerprint(self.model.path, self.model.pooling, self.engine.precision)

    def embed(self, texts: Sequence[str], rule: ReadingRule) -> np.ndarray:
        """Embed texts, longer ones in windows; returns unit vectors [N, T] float32.

        Raises:
            ValueError: the backbone has fewer positions than a text may have tokens.
        """
        cut = (rule.max_tokens, rule.window_tokens)
        return encode_windows(self._encoder, texts, rule.instruction, *cut, self.section.batch_tokens)

    def token_counts(self, texts: Sequence[str], instruction: str) -> list[int]:
        """Count the tokens of each whole text behind an instruction."""
        return whole_lengths(self._tokenizer, [instruction + text for text in texts])

    @cached_property
    def _encoder(self) -> Encoder:
        """The encoder on this process's device, whose sides are named by their instructions."""
        torch.set_num_threads(self.engine.threads)
        tell_unused_settings(self.model.path, local_folder(self.model.path), self.section.prompts.values())
        prompts = {instruction: instruction for instruction in self.section.prompts.values()}
        settings = EncoderSettings(self.model.pooling, prompts, self.section.max_tokens)
        encoder = load_encoder(self.model.path, settings)
        take_length(encoder.backbone, longest_input(self.section))
        return place(encoder, precision=self.engine.precision, packing=self.engine.packing)

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.model.path)
        if self.model.pooling == "last":
            ensure_end_of_sequence(tokenizer)
        return tokenizer
