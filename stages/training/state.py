"""A run's moving parts: made from a schedule, saved to a checkpoint and restored from it, bit for bit on a CPU."""

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
from stages.training.checkpoints import CheckpointFile, restore_rng, rng_state
from stages.training.distributed import spread_like, whole

Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; steps are optimizer updates."""

    steps: int
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    evaluate_every: int
    checkpoint_every: int


@dataclass
class Run:
    """A run's moving parts, saved and restored together."""

    objective: Objective
    optimizer: AdamW
    scheduler: LambdaLR
    step: int
    curve: Curve
    snapshot: dict[str, Tensor]


def trained(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name."""
    return {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}


def start(objective: Objective, schedule: Schedule) -> Run:
    """A run at step 0."""
    # Vectors and scalars do not decay; what is spread over processes takes a group of its own.
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trained(objective).values():
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
    return Run(objective, optimizer, scheduler, step=0, curve=[], snapshot={})


def save(run: Run, checkpoint: CheckpointFile, writes: bool) -> None:
    """Write a checkpoint, from the process that `writes`; a full disk costs this checkpoint alone."""
    tensors = {f"trained.{key}": whole(value.detach()) for key, value in trained(run.objective).items()}
    tensors |= {f"snapshot.{key}": value for key, value in run.snapshot.items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": whole(value) for key, value in moments.items()}
    if writes:
        state = {"step": run.step, "curve": run.curve, "scheduler": _plain(run.scheduler)}
        try:
            checkpoint.save(tensors | rng_state(), state)
        except OSError as error:
            tqdm.write(f"warning: {error}; training goes on, and a kill would lose the steps since the last one")


def resume(run: Run, checkpoint: CheckpointFile, log: Callable[[dict[str, float], int], None]) -> None:
    """Go on from the last checkpoint, if there is one, and log again what it had logged."""
    loaded = checkpoint.load()
    if loaded is None:
        return
    tensors, state = loaded
    with torch.no_grad():
        for key, parameter in trained(run.objective).items():
            parameter.copy_(spread_like(tensors[f"trained.{key}"], parameter))
    optimizer = run.optimizer.state_dict()
    learning = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    optimizer["state"] = {
        index: {key: spread_like(value, learning[index]) if value.ndim else value for key, value in moments.items()}
        for index, moments in _nested(tensors, "optimizer.").items()
    }
    run.optimizer.load_state_dict(optimizer)
    run.scheduler.load_state_dict(state["scheduler"])
    for group, rate in zip(run.optimizer.param_groups, run.scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    run.step, run.curve = state["step"], state["curve"]
    run.snapshot = {
        key.removeprefix("snapshot."): value for key, value in tensors.items() if key.startswith("snapshot.")
    }
    restore_rng(tensors)
    for row in run.curve:
        log({key: value for key, value in row.items() if key != "step"}, int(row["step"]))


def _plain(scheduler: LambdaLR) -> dict[str, Any]:
    """The scheduler's state without its functions, which the schedule gives again."""
    return {key: value for key, value in scheduler.state_dict().items() if key != "lr_lambdas"} | {
        "lr_lambdas": [None] * len(scheduler.lr_lambdas)
    }


def _nested(tensors: dict[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split(".")
            states.setdefault(int(index), {})[name] = value
    return states
