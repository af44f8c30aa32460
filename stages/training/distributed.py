"""The processes of a training run: gathered embeddings with gradients, summed gradients, sharded weights (FSDP).

Every process computes the loss of the whole batch from all embeddings, but carries only its own share of the texts
through the encoder. So negatives come from all processes, and W processes learn what one process would learn from the
same batch.

Shapes: m texts of this process, M texts of all processes, D student dimension.
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


class TrainingProcesses:
    """The processes of a run, seen from this process; a stage that was started by itself has no peers."""

    def __init__(self, expected: int) -> None:
        """Join the peers.

        Raises:
            RuntimeError: the number of processes is not the recipe's, so batches would have another size.
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
        """Gather the rows of all processes [M, D] from those of each [m, D], in order of rank, with gradients.

        Args:
            local: `counts[rank]` rows.
        """
        return local if self.count == 1 else _Gather.apply(local, tuple(counts), self.rank)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, in a single message; sharded ones are summed already."""
        all_gradients = (parameter.grad for parameter in parameters)
        gradients = [grad for grad in all_gradients if grad is not None and not isinstance(grad, DTensor)]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([grad.numel() for grad in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def check_same_step(self, step: int) -> None:
        """Make sure that all processes resume from the same step.

        Raises:
            ConnectionError: they read different checkpoints, because a machine sees the shared folder late.
        """
        total = int(self.sum(torch.tensor([step], device=self.device)))
        if total != step * self.count:
            raise ConnectionError(
                f"the process of rank {self.rank} resumes from step {step}, others do not: machines see different "
                "checkpoints in the folder that they share; start again when they see the same"
            )

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over the processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def shard(self, encoder: Encoder) -> nn.Module:
        """Spread the backbone's weights over the processes, layer by layer (FSDP); gradients stay sums.

        Returns:
            A copy of the whole backbone on the CPU, for `unshard`.

        Raises:
            ValueError: there is a single process, or the backbone has no list of layers.
        """
        if self.count == 1:
            raise ValueError(
                "engine.shard spreads weights over processes, got 1; raise engine.processes or set it false"
            )
        whole_backbone = copy.deepcopy(encoder.backbone.to("cpu"))
        encoder.backbone.to(self.device)
        for module in (*layers_of(encoder.backbone), encoder.backbone):
            sharded = fully_shard(module)
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)  # gloo only knows sums
        return whole_backbone


class _Gather(torch.autograd.Function):
    """Gather the rows of all processes; the backward pass hands each process the gradient of its own rows.

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
    """Give every process the whole weights again, in the backbone that `TrainingProcesses.shard` returned.

    All processes call this. FSDP never touched that backbone, so it can be saved, used or trained further.
    """
    device = encoder.device
    for learned, parameter in zip(encoder.backbone.parameters(), whole_backbone.parameters(), strict=True):
        parameter.copy_(whole(learned))
    encoder.backbone = whole_backbone.to(device)


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a sharded tensor (all processes call this), and any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(value: Tensor, model: Tensor) -> Tensor:
    """Bring a whole tensor into the device and layout of another one: the inverse of `whole`."""
    if not isinstance(model, DTensor):
        return value.to(model.device)
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
