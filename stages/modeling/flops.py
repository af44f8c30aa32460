"""FLOPs of a backbone, counted from its shape: one multiply-add is two.

Matrix products alone are counted: linear maps, attention scores and their application. Attention is counted whole, as
the kernels compute it under a mask, though causal and local attention need a part of it. What a kernel or gradient
checkpointing computes twice is counted once, as usual for the share of a machine's peak (MFU). Losses and optimizers
are left out.

Shapes: B texts, T tokens of all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from stages.modeling.backbones import keep_layers, layers_of, without_dropout
from stages.modeling.last_token_layer import narrows

# Names that backbones give the linear maps which read a layer's input.
READS_INPUT = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "Wqkv", "qkv_proj", "q_lin", "k_lin", "v_lin")

# Of these, the ones that a narrowed last layer still applies to every token.
READS_ALL = ("k_proj", "v_proj")


class Maps(NamedTuple):
    """Linear maps taken together."""

    weights: int  # multiply-adds a token
    inputs: int
    outputs: int

    @classmethod
    def of(cls, linears: Iterable[nn.Linear]) -> "Maps":
        """Sums over some linear maps."""
        sizes = [(one.in_features, one.out_features) for one in linears]
        return cls(sum(a * b for a, b in sizes), sum(a for a, _ in sizes), sum(b for _, b in sizes))


@dataclass(frozen=True)
class Shape:
    """What decides a backbone's FLOPs and size."""

    num_layers: int
    hidden_size: int
    attention_width: int  # dimensions of all query heads together
    linears: Maps  # of all layers
    first_reads: Maps  # those of the first layer that read the token embeddings
    last_narrowed: Maps  # those of the last layer that can work on the one position that pooling reads
    parameters: int
    embedding_parameters: int  # of `parameters`, those of the token embeddings


def shape_of(backbone: Any) -> Shape:
    """The shape of a backbone, with weights or on the meta device."""
    config = backbone.config
    layers: Any = layers_of(backbone)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    first = [module for name, module in _linears(layers[0]) if name.rpartition(".")[2] in READS_INPUT]
    last = _linears(layers[-1]) if narrows(layers[-1], "last") else []
    return Shape(
        len(layers),
        config.hidden_size,
        config.num_attention_heads * head,
        Maps.of(module for _, module in _linears(layers)),
        Maps.of(first),
        Maps.of(module for name, module in last if name.rpartition(".")[2] not in READS_ALL),
        sum(parameter.numel() for parameter in backbone.parameters()),
        backbone.get_input_embeddings().weight.numel(),
    )


def shape_of_config(config: PreTrainedConfig, num_layers: int | None) -> Shape:
    """The shape of a backbone that a config describes, cut to its first layers; no weights are made."""
    return shape_of(weightless(config, num_layers))


def weightless(config: PreTrainedConfig, num_layers: int | None) -> PreTrainedModel:
    """A backbone as `load_backbone` loads it, on the meta device."""
    with torch.device("meta"):
        backbone = AutoModel.from_config(without_dropout(config), trust_remote_code=False)
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    if num_layers is not None:
        keep_layers(backbone, range(num_layers))
    return backbone


def _linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]


def forward_flops(shape: Shape, lengths: Sequence[int] | np.ndarray, *, narrowed: bool, rank: int | None) -> float:
    """FLOPs of embedding texts of some lengths in tokens.

    Args:
        narrowed: the last layer works on one position a text where it can (`last` and `cls` pooling).
        rank: of the LoRA adapter that runs along, None without one.
    """
    base, adapter = _products(shape, lengths, narrowed, rank)
    return 2.0 * (base + adapter + _scores(shape, lengths, narrowed))


def training_flops(shape: Shape, lengths: Sequence[int] | np.ndarray, *, narrowed: bool, rank: int | None) -> float:
    """FLOPs of a forward and a backward pass.

    Args:
        narrowed: as in `forward_flops`.
        rank: of the LoRA adapter that is trained on the frozen backbone; None trains the backbone. Frozen token
            embeddings make no difference then: the norm behind them is trained and wants the gradient.
    """
    base, adapter = _products(shape, lengths, narrowed, rank)
    forward = base + adapter + _scores(shape, lengths, narrowed)
    if rank is None:
        return 2.0 * 3 * forward
    tokens = float(np.sum(lengths))
    # No gradient of frozen weights, and none of the token embeddings, to which no trained part passes one on.
    unneeded = base + tokens * (shape.first_reads.weights + rank * shape.first_reads.inputs)
    return 2.0 * (3 * forward - unneeded)


def _products(
    shape: Shape, lengths: Sequence[int] | np.ndarray, narrowed: bool, rank: int | None
) -> tuple[float, float]:
    """Multiply-adds of the linear maps, and of the adapter's beside them."""
    tokens = float(np.sum(lengths))
    left_out = tokens - len(lengths) if narrowed else 0.0

    def both(sizes: Sequence[int]) -> float:
        return sizes[0] * tokens - sizes[1] * left_out

    base = both([shape.linears.weights, shape.last_narrowed.weights])
    sides = both([sum(shape.linears[1:]), sum(shape.last_narrowed[1:])])
    return base, (rank or 0) * sides


def _scores(shape: Shape, lengths: Sequence[int] | np.ndarray, narrowed: bool) -> float:
    """Multiply-adds of attention: scores and their application to the values, every token with every other."""
    length = np.asarray(lengths, dtype=float)
    pairs = shape.num_layers * float(np.square(length).sum())
    if narrowed and shape.last_narrowed.weights:  # one token with every other
        pairs -= float((np.square(length) - length).sum())
    return 2.0 * shape.attention_width * pairs
