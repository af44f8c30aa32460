"""The state of a training run: made from a schedule, saved to a checkpoint and restored bit for bit (on a CPU)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from stages.objectives.objective import Objective
from stages.recipe.training import Schedule
from stages.training.checkpoints import CheckpointFile, restore_rng, rng_state
from stages.training.distributed import shard_like, whole

Curve = list[dict[str, float]]  # a row of figures for each step
Log = Callable[[dict[str, float], int], None]  # takes the figures of a step, and its number


@dataclass
class TrainingState:
    """Everything that changes while a run trains."""

    objective: Objective
    optimizer: AdamW
    scheduler: LambdaLR
    step: int
    curve: Curve
    snapshot: dict[str, Tensor]


def trainable(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}


def start(objective: Objective, schedule: Schedule) -> TrainingState:
    """Make the state of a run at step 0."""
    # Vectors and scalars do not decay; parameters that are sharded over processes need groups of their own.
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trainable(objective).values():
        groups.setdefault((parameter.ndim >= 2, isinstance(parameter, DTensor)), []).append(parameter)
    optimizer = AdamW(
        [
            {"params": parameters, "weight_decay": schedule.weight_decay if decays else 0.0}
            for (decays, _), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
        ],
        lr=schedule.learning_rate,
        fused=True,
    )
    warmup = math.ceil(schedule.warmup_ratio * schedule.steps)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, schedule.steps)
    return TrainingState(objective, optimizer, scheduler, step=0, curve=[], snapshot={})


def save(state: TrainingState, checkpoint: CheckpointFile, is_writer: bool) -> None:
    """Write a checkpoint, from the process that writes; where the disk is full, training goes on without it."""
    tensors = {f"trained.{key}": whole(value.detach()) for key, value in trainable(state.objective).items()}
    tensors |= {f"snapshot.{key}": value for key, value in state.snapshot.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": whole(value) for key, value in moments.items()}
    if is_writer:
        scheduler = state.scheduler.state_dict() | {"lr_lambdas": [None] * len(state.scheduler.lr_lambdas)}
        try:
            checkpoint.save(tensors | rng_state(), {"step": state.step, "curve": state.curve, "scheduler": scheduler})
        except OSError as error:
            tqdm.write(f"warning: {error}; training goes on, and a kill would lose the steps since the last checkpoint")


def resume(state: TrainingState, checkpoint: CheckpointFile, log: Log) -> None:
    """Restore the last checkpoint, if there is one, and log again the figures that it holds."""
    loaded = checkpoint.load()
    if loaded is None:
        return
    tensors, values = loaded
    with torch.no_grad():
        for key, parameter in trainable(state.objective).items():
            parameter.copy_(shard_like(tensors[f"trained.{key}"], parameter))
    optimizer = state.optimizer.state_dict()
    learned = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    optimizer["state"] = {
        index: {key: shard_like(value, learned[index]) if value.ndim else value for key, value in moments.items()}
        for index, moments in _moments_by_parameter(tensors).items()
    }
    state.optimizer.load_state_dict(optimizer)
    state.scheduler.load_state_dict(values["scheduler"])
    for group, rate in zip(state.optimizer.param_groups, state.scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    state.step, state.curve = values["step"], values["curve"]
    state.snapshot = {
        key.removeprefix("snapshot."): value for key, value in tensors.items() if key.startswith("snapshot.")
    }
    restore_rng(tensors)
    for row in state.curve:
        log({key: value for key, value in row.items() if key != "step"}, int(row["step"]))


def _moments_by_parameter(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Collect the tensors named `optimizer.<index>.<name>`: index -> name -> tensor."""
    moments: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    return moments
