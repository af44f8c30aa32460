"""The processes of a training run: embeddings gathered with gradients, gradients summed, weights spread (FSDP).

Every process computes the loss of the whole batch from all embeddings, and carries its own share of the texts through
the encoder. So negatives come from all processes, and W processes learn what one would from the same batch.

Shapes: m texts of this process, M texts of all, D student dimension.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from stages.modeling.backbones import layers_of
from stages.modeling.encoder import Encoder


class Processes:
    """A process among its peers; alone where the stage was started by itself."""

    def __init__(self, expected: int) -> None:
        """Join the peers.

        Raises:
            RuntimeError: there are not as many processes as the recipe says, so batches would have another size.
        """
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.count, self.rank = self._state.num_processes, self._state.process_index
        if self.count != expected:
            raise RuntimeError(
                f"got {self.count} processes, engine.processes is {expected}; start the stage with python -m, "
                "which starts the others, or correct the recipe"
            )

    @property
    def device(self) -> torch.device:
        """The GPU of this process, or the CPU."""
        return torch.device(self._state.device)

    def gather(self, local: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all processes [M, D] from those of each [m, D], in order of rank, with gradients.

        Args:
            local: `counts[rank]` rows.
        """
        return local if self.count == 1 else _Gather.apply(local, tuple(counts), self.rank)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, in one message; sharded ones are summed already."""
        gradients = [one.grad for one in parameters if one.grad is not None and not isinstance(one.grad, DTensor)]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def check_alike(self, step: int) -> None:
        """Make sure that all go on from the same step.

        Raises:
            ConnectionError: some read another checkpoint, from a folder that their machine sees late.
        """
        total = int(self.sum(torch.tensor([step], device=self.device)))
        if total != step * self.count:
            raise ConnectionError(
                f"the process of rank {self.rank} goes on from step {step}, others do not: machines see different "
                "checkpoints in the folder that they share; start again when they see the same"
            )

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def shard(self, encoder: Encoder) -> nn.Module:
        """Spread the backbone's weights over the processes, layer by layer (FSDP); gradients are sums, as elsewhere.

        Returns:
            The backbone as it was, on the CPU, for `unshard`.

        Raises:
            ValueError: there is one process, or the backbone has no list of layers.
        """
        if self.count == 1:
            raise ValueError(
                "engine.shard spreads weights over processes, got 1; raise engine.processes or set it false"
            )
        whole_backbone = copy.deepcopy(encoder.backbone.to("cpu"))
        encoder.backbone.to(self.device)
        for module in (*layers_of(encoder.backbone), encoder.backbone):
            spread = fully_shard(module)
            spread.set_gradient_divide_factor(1.0)
            spread.set_force_sum_reduction_for_comms(True)  # gloo knows sums alone
        return whole_backbone


class _Gather(torch.autograd.Function):
    """All processes' rows; backward hands each process the gradient of its own rows.

    That gradient is complete, because every process computes the whole loss.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.start, ctx.size = sum(counts[:rank]), counts[rank]
        padded = torch.nn.functional.pad(local, (0, 0, 0, max(counts) - len(local))).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.start : ctx.start + ctx.size].contiguous(), None, None


@torch.no_grad()
def unshard(encoder: Encoder, whole_backbone: nn.Module) -> None:
    """Give every process the whole weights again, in a backbone that FSDP never touched: to save, use or train it on.

    Called by all processes; `whole_backbone` is what `Processes.shard` returned.
    """
    device = encoder.device
    for learned, parameter in zip(encoder.backbone.parameters(), whole_backbone.parameters(), strict=True):
        parameter.copy_(whole(learned))
    encoder.backbone = whole_backbone.to(device)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that is spread over the processes (which all call this)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor in the layout of another one: the inverse of `whole`."""
    if not isinstance(model, DTensor):
        return value.to(model.device)
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
