"""Torch's own reading of the cases: the base under an adapter, before anything is merged or exported.

Shapes: N cases, D embedding dimension.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.release.format_comparison import Reading
from stages.release.parity_texts import Case


def embedded_cases(encoder: Encoder, cases: Sequence[Case], longest: int) -> list[int]:
    """The cases of at most so many tokens."""
    return [row for row, case in enumerate(cases) if len(_tokens(encoder, case, encoder.settings.prompts)) <= longest]


@torch.inference_mode()
def reference(encoder: Encoder, cases: Sequence[Case], embedded: Sequence[int], prompts: Mapping[str, str]) -> Reading:
    """Token ids of all cases, and vectors of some, [N, D], each text in a batch of its own.

    Args:
        prompts: the task's, by side.
    """
    encoder.eval()
    token_ids = [_tokens(encoder, case, prompts) for case in cases]
    vectors = [encoder(**encoder.pad(Tokens.of([token_ids[row]]))).numpy() for row in embedded]
    settings = {
        "pooling": encoder.settings.pooling,
        "prompts": dict(prompts),
        "max_tokens": encoder.settings.max_tokens,
        "padding_side": encoder.tokenizer.padding_side,
    }
    return Reading(token_ids, np.concatenate(vectors), settings=settings)


def _tokens(encoder: Encoder, case: Case, prompts: Mapping[str, str]) -> list[int]:
    """Behind the task's prompt: that of the encoder's side which has the same."""
    side = next(name for name, prompt in encoder.settings.prompts.items() if prompt == prompts[case.side])
    ids: list[int] = encoder.tokenize([case.text], side)[0].tolist()
    return ids
