"""Torch's own output for the cases: the base with an adapter, before the adapter is merged or exported.

Shapes: N cases that are embedded, D embedding dimension.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.recipe.fields import Task
from stages.release.format_comparison import FormatOutput
from stages.release.parity_texts import Case


def task_prompts(encoder: Encoder, task: Task) -> dict[str, str]:
    """Prompt of each side; every task but retrieval reads both sides as documents."""
    query, document = encoder.settings.prompts["query"], encoder.settings.prompts["document"]
    return {"query": query if task == "retrieval" else document, "document": document}


def embedded_cases(encoder: Encoder, cases: Sequence[Case], longest: int) -> list[int]:
    """Numbers of the cases that have at most `longest` tokens."""
    return [row for row, case in enumerate(cases) if len(_tokens(encoder, case, encoder.settings.prompts)) <= longest]


@torch.inference_mode()
def reference_output(
    encoder: Encoder, cases: Sequence[Case], embedded: Sequence[int], prompts: Mapping[str, str]
) -> FormatOutput:
    """Tokenise all cases and embed those numbered in `embedded`, [N, D], each in a batch of its own.

    Args:
        prompts: the task's prompts, by side.
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
    return FormatOutput(token_ids, np.concatenate(vectors), settings=settings)


def _tokens(encoder: Encoder, case: Case, prompts: Mapping[str, str]) -> list[int]:
    """Token ids of a text behind its prompt, tokenised as the side of the encoder that has this prompt."""
    side = next(name for name, prompt in encoder.settings.prompts.items() if prompt == prompts[case.side])
    ids: list[int] = encoder.tokenize([case.text], side)[0].tolist()
    return ids
