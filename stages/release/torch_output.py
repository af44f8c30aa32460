"""Torch's own output for the cases: the base with an adapter, before the adapter is merged or exported.

Shapes: N cases that are embedded, D embedding dimension.
"""

from collections.abc import Sequence

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


def tokenized(encoder: Encoder, cases: Sequence[Case], task: Task) -> list[list[int]]:
    """Token ids of each case behind the task's prompt of its side."""
    sides = [case.side if task == "retrieval" else "document" for case in cases]
    return [encoder.tokenize([case.text], side)[0].tolist() for case, side in zip(cases, sides, strict=True)]


@torch.inference_mode()
def torch_output(encoder: Encoder, cases: Sequence[Case], embedded: Sequence[int], task: Task) -> FormatOutput:
    """Tokenise all cases and embed those numbered in `embedded`, [N, D], each in a batch of its own."""
    encoder.eval()
    token_ids = tokenized(encoder, cases, task)
    vectors = [encoder(**encoder.pad(Tokens.of([token_ids[row]]))).numpy() for row in embedded]
    settings = {
        "pooling": encoder.settings.pooling,
        "prompts": task_prompts(encoder, task),
        "max_tokens": encoder.settings.max_tokens,
        "padding_side": encoder.tokenizer.padding_side,
    }
    return FormatOutput(token_ids, np.concatenate(vectors), settings=settings)
