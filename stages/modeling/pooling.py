"""Which hidden state is the embedding, and how the last layer works on that position alone.

Shapes: B texts, L tokens of the longest, T tokens of all, D embedding dimension.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Pooling = Literal["last", "mean", "cls"]


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce hidden states [B, L, D] under mask [B, L] to [B, D]; padding may stand on either side."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).float()
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return hidden[read_positions(mask, pooling)]


def read_positions(mask: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Index ([B], [B]) of the row and position that `last` or `cls` pooling reads under mask [B, L]."""
    first = mask.argmax(dim=1)
    position = first if pooling == "cls" else first + mask.sum(dim=1) - 1
    return torch.arange(mask.shape[0], device=mask.device), position


def narrows(layer: nn.Module) -> bool:
    """Whether a layer is one of the Llama family: a norm before its attention, one before its MLP, and no other.

    Where a norm comes behind the sum with the residual, a narrowed MLP would narrow the residual, too.
    """
    norms = {name for name, _ in layer.named_children() if "norm" in name}
    return norms == {"input_layernorm", "post_attention_layernorm"}


class NarrowedMlp:
    """Has the last layer's MLP work on the positions that pooling reads; it is two thirds of that layer.

    Exact for layers of the Llama family; other backbones stay as they are. The hooks stay on the backbone and do
    nothing outside `at`, so that one compiled graph serves every batch.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._read: tuple[Tensor, Tensor] | None = None
        layers: Any = getattr(backbone, "layers", None)
        self._layer = layers[-1] if layers is not None and narrows(layers[-1]) else None
        if self._layer is not None:
            self._layer.post_attention_layernorm.register_forward_pre_hook(self._narrow)
            self._layer.mlp.register_forward_hook(self._widen)

    @contextmanager
    def at(self, read: tuple[Tensor, Tensor] | None) -> Iterator[None]:
        """Inside the block the MLP works on the positions `read`: index ([B], [B]) of row and position."""
        if self._layer is None or read is None:
            yield
            return
        # Recomputing this layer in the backward pass would come after the block, and keeping it costs little.
        self._layer.gradient_checkpointing = False
        self._read = read
        try:
            yield
        finally:  # the backbone alone, or under another encoder, is whole again
            self._read = None

    def _narrow(self, _module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """States of every position -> [B, 1, D], those at the positions read."""
        if self._read is None:
            return None
        self._shape = inputs[0].shape
        return (inputs[0][self._read].unsqueeze(1),)

    def _widen(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        """[B, 1, D] -> what is added to the residual: right at the positions read, no matter elsewhere.

        A padded batch [B, L, D] takes it at every position; in a packed one [1, T, D] each row goes to its place.
        """
        if self._read is None or len(output) == self._shape[0]:
            return None
        return output.new_zeros(self._shape).index_put(self._read, output.squeeze(1))
