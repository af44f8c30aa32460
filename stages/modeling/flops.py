"""FLOPs of a backbone, counted by PyTorch's own counter on a copy of its modules without data.

A multiply-add is two FLOPs, and matrix products alone are counted. Attention is counted whole, as the kernels compute
it under a mask, though causal and local attention need a part of it. Layers that gradient checkpointing computes again
are counted once, as is usual for the share of a machine's peak (MFU). Losses and optimizers are left out.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from stages.modeling.backbones import keep_layers, without_dropout
from stages.modeling.last_token_layer import use_last_token_layer
from stages.recipe.fields import Pooling

# A text of L tokens costs constant + linear * L + quadratic * L ** 2: three equidistant lengths give the three numbers.
STEP = 8


@dataclass(frozen=True)
class TextFlops:
    """FLOPs of one pass over a text of L tokens: constant + linear * L + quadratic * L ** 2."""

    constant: float
    linear: float
    quadratic: float

    def of(self, lengths: Sequence[int] | np.ndarray) -> float:
        """FLOPs of texts whose lengths in tokens are given."""
        length = np.asarray(lengths, dtype=np.float64)
        squares = np.square(length).sum()
        return float(self.constant * len(length) + self.linear * length.sum() + self.quadratic * squares)


def untrained_backbone(
    config: PreTrainedConfig, layers: Sequence[int] | None = None, device: str = "meta"
) -> PreTrainedModel:
    """Build the backbone that `load_backbone` loads, with random weights; on the meta device without any data."""
    with torch.device(device):
        backbone = AutoModel.from_config(without_dropout(copy.deepcopy(config)), trust_remote_code=False)
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    if layers is not None:
        keep_layers(backbone, layers)
    return backbone


def with_adapter(backbone: PreTrainedModel, lora: LoraConfig) -> PeftModel:
    """Put an adapter without data on a backbone without data; the adapter alone is trained."""
    lora = copy.deepcopy(lora)
    lora.inference_mode = False  # a saved adapter is loaded frozen
    with torch.device("meta"):
        return get_peft_model(backbone, lora)


def count_flops(
    backbone: PreTrainedModel, pooling: Pooling, lora: LoraConfig | None = None, *, backward: bool
) -> TextFlops:
    """Count the FLOPs of embedding a text, or of a training pass.

    Args:
        backbone: an untrained one on the meta device; it is changed in place.
        lora: adapter that runs along, and that alone is trained; None trains the backbone.
        backward: whether the gradients are computed too.

    Example:
        >>> count_flops(untrained_backbone(config), "mean", backward=False).of([96, 12])  # texts of 96 and of 12 tokens
    """
    reads_one_position = use_last_token_layer(backbone, pooling)
    model = backbone if lora is None else with_adapter(backbone, lora)
    one, two, three = (_count(model, tokens, reads_one_position, backward) for tokens in (STEP, 2 * STEP, 3 * STEP))
    quadratic = (three - 2 * two + one) / (2 * STEP**2)
    linear = (two - one) / STEP - 3 * STEP * quadratic
    return TextFlops(one - linear * STEP - quadratic * STEP**2, linear, quadratic)


def _count(model: Any, tokens: int, reads_one_position: bool, backward: bool) -> int:
    """FLOPs of one text; other attention kernels compute scores twice, and are not counted on every device."""
    text = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    # A mask of four dimensions goes to the attention as it is: transformers would look into any other.
    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device="meta")
    read = {"read": (text[0, :1], text[0, :1])} if reads_one_position else {}
    with (
        torch.set_grad_enabled(backward),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        states = model(input_ids=text, attention_mask=mask, **read).last_hidden_state
        if backward:
            states.sum().backward()
    return counter.get_total_flops()
