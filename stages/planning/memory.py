"""Memory of a phase on one device: weights, gradients, optimizer, and what a pass keeps of its activations."""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from transformers import PreTrainedConfig

from stages.modeling.flops import Shape, weightless

FLOAT32 = 4
# AdamW keeps two moments of each trained value.
OPTIMIZER = 2 * FLOAT32
# Lengths from whose difference the bytes of a token are read, and layers of a backbone to look at.
FEW, MORE = 32, 64
LAYERS = 2


@dataclass(frozen=True)
class Activations:
    """Bytes that a training pass keeps for its backward pass."""

    token: float  # of each token, all layers
    fixed: float  # of a pass: weights cast to half precision


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All together, without the libraries' own."""
        return self.weights + self.gradients + self.optimizer + self.activations


def activations(config: PreTrainedConfig, num_layers: int, precision: torch.dtype) -> Activations:
    """What autograd saves of a backbone: a pass of its first layers over tensors that have shapes and no data."""
    seen = min(LAYERS, num_layers)
    backbone = weightless(config, seen)
    few, more = (_saved(backbone, tokens, precision) for tokens in (FEW, MORE))
    token = (more - few) / (MORE - FEW)
    return Activations(token * num_layers / seen, (few - FEW * token) * num_layers / seen)


def _saved(backbone: Any, tokens: int, precision: torch.dtype) -> float:
    saved: dict[int, tuple[Any, int]] = {}  # a storage is kept, so that its address is not used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point():
            saved[storage._cdata] = (storage, storage.nbytes())
        return tensor

    with FakeTensorMode():
        state = {
            name: torch.empty(value.shape, dtype=value.dtype).requires_grad_(isinstance(value, nn.Parameter))
            for name, value in itertools.chain(backbone.named_parameters(), backbone.named_buffers())
        }
        own = {value.untyped_storage()._cdata for value in state.values()}
        ids = torch.zeros(1, tokens, dtype=torch.long)  # one text, so no mask
        with (
            torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            functional_call(backbone.train(), state, kwargs={"input_ids": ids})
    return float(sum(size for address, (_, size) in saved.items() if address not in own))


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Parameters of a LoRA adapter on all linear maps."""
    return rank * (shape.linears.inputs + shape.linears.outputs)


def trained_parameters(shape: Shape, rank: int | None, frozen_embeddings: bool) -> int:
    """Parameters that a phase trains: an adapter's, or the backbone's."""
    if rank is not None:
        return adapter_parameters(shape, rank)
    return shape.parameters - (shape.embedding_parameters if frozen_embeddings else 0)


def training_memory(
    shape: Shape,
    kept: Activations,
    *,
    rank: int | None,
    frozen_embeddings: bool,
    micro_batch_tokens: int,
    checkpointing: bool,
    sharded_over: int,
) -> Memory:
    """A training phase.

    Args:
        rank: of the adapter that is trained; None trains the backbone.
        sharded_over: processes that share weights, gradients and optimizer (FSDP); 1 without.
    """
    adapter = 0 if rank is None else adapter_parameters(shape, rank)
    trained = trained_parameters(shape, rank, frozen_embeddings)
    of_token = kept.token
    if checkpointing:  # each layer's input, and one layer as it runs again
        of_token = shape.num_layers * shape.hidden_size * FLOAT32 + kept.token / shape.num_layers
    return Memory(
        (shape.parameters + adapter) * FLOAT32 / sharded_over,
        trained * FLOAT32 / sharded_over,
        trained * OPTIMIZER / sharded_over,
        of_token * micro_batch_tokens + kept.fixed,
    )


def embedding_memory(shape: Shape, kept: Activations, batch_tokens: int) -> Memory:
    """A frozen model that embeds: of its activations, those of one layer at a time."""
    return Memory(shape.parameters * FLOAT32, 0.0, 0.0, kept.token / shape.num_layers * batch_tokens + kept.fixed)
