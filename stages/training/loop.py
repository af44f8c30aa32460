"""The training loop, the same for every phase: it knows steps and named loss terms, no model and no loss.

An objective is a module whose forward takes row numbers and returns named, weighted loss terms; whatever of it requires
a gradient is trained: the student, a projection, a temperature.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from stages.training.checkpoints import CheckpointFile, restore_rng, rng_state

Curve = list[dict[str, float]]
EpochBatches = Callable[[int], list[np.ndarray]]


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
class _Run:
    """A run's moving parts, saved and restored together."""

    objective: nn.Module
    optimizer: AdamW
    scheduler: LambdaLR
    step: int
    curve: Curve
    snapshot: dict[str, Tensor]


def train(
    objective: nn.Module,
    epoch_batches: EpochBatches,
    schedule: Schedule,
    checkpoint: CheckpointFile,
    *,
    name: str,
    evaluate: Callable[[], dict[str, float]],
    log: Callable[[dict[str, float], int], None],
    snapshot_at: int | None = None,
) -> tuple[Curve, dict[str, Tensor]]:
    """Train an objective in place, from its last checkpoint if there is one.

    Args:
        objective: maps row numbers [B] to named loss terms; their sum is minimised.
        epoch_batches: batches of row numbers of an epoch, the same whenever the epoch is asked for.
        evaluate: dev metrics of the model as it stands, called every `evaluate_every` steps and at the end.
        log: takes a row of the curve and its step.
        snapshot_at: step at which to keep a copy of the trained tensors, for averaging.

    Returns:
        The curve, and the snapshot by parameter name (empty without `snapshot_at`).

    Raises:
        FloatingPointError: the loss is not finite; names the step and the rows.
    """
    accelerator = Accelerator()
    run = _start(objective, schedule)
    _resume(run, checkpoint, log)
    prepared = accelerator.prepare(run.objective)
    run.optimizer = accelerator.prepare(run.optimizer)
    terms: dict[str, float] = {}
    with tqdm(total=schedule.steps, initial=run.step, desc=name, unit="step") as bar:
        for rows in _from_step(epoch_batches, run.step, schedule.steps):
            terms = _update(accelerator, prepared, run, rows, schedule.max_grad_norm)
            bar.update()
            if run.step == snapshot_at:
                run.snapshot = {key: value.detach().clone() for key, value in trained(objective).items()}
            if run.step % schedule.evaluate_every == 0 or run.step == schedule.steps:
                prepared.eval()
                terms |= {f"dev_{key}": value for key, value in evaluate().items()}
                bar.set_postfix(
                    {key: f"{value:.3f}" for key, value in terms.items() if key.startswith(("loss", "dev"))}
                )
            run.curve.append({"step": run.step, **terms})
            log(terms, run.step)
            if run.step % schedule.checkpoint_every == 0 or run.step == schedule.steps:
                _save(run, checkpoint)
    return run.curve, run.snapshot


def trained(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name."""
    return {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}


def _start(objective: nn.Module, schedule: Schedule) -> _Run:
    parameters = trained(objective)
    decayed = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    others = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    optimizer = AdamW(
        [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=schedule.learning_rate,
        fused=True,
    )
    warmup = math.ceil(schedule.warmup_ratio * schedule.steps)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, schedule.steps)
    return _Run(objective, optimizer, scheduler, step=0, curve=[], snapshot={})


def _from_step(epoch_batches: EpochBatches, done: int, steps: int) -> Iterator[np.ndarray]:
    """Batches of the steps after `done`, epoch after epoch."""
    step, epoch = 0, 0
    while step < steps:
        for rows in epoch_batches(epoch):
            step += 1
            if step > steps:
                return
            if step > done:
                yield rows
        epoch += 1


def _update(
    accelerator: Accelerator, prepared: nn.Module, run: _Run, rows: np.ndarray, max_grad_norm: float
) -> dict[str, float]:
    prepared.train()
    losses: dict[str, Tensor] = prepared(rows)
    loss = torch.stack(list(losses.values())).sum()
    run.step += 1
    if not torch.isfinite(loss):
        values = {name: value.item() for name, value in losses.items()}
        raise FloatingPointError(f"loss is {values} at step {run.step}, rows {rows.tolist()}; lower the learning rate")
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(list(trained(run.objective).values()), max_grad_norm)
    run.optimizer.step()
    run.scheduler.step()
    run.optimizer.zero_grad()
    learning_rate = float(run.scheduler.get_last_lr()[0])
    values = {name: value.item() for name, value in losses.items()}
    return {"loss": loss.item(), **values, "learning_rate": learning_rate, "gradient_norm": float(norm)}


def _save(run: _Run, checkpoint: CheckpointFile) -> None:
    tensors: dict[str, Tensor] = {f"trained.{key}": value.detach() for key, value in trained(run.objective).items()}
    tensors |= {f"snapshot.{key}": value for key, value in run.snapshot.items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    checkpoint.save(tensors | rng_state(), {"step": run.step, "curve": run.curve, "scheduler": _plain(run.scheduler)})


def _resume(run: _Run, checkpoint: CheckpointFile, log: Callable[[dict[str, float], int], None]) -> None:
    loaded = checkpoint.load()
    if loaded is None:
        return
    tensors, state = loaded
    with torch.no_grad():
        for key, parameter in trained(run.objective).items():
            parameter.copy_(tensors[f"trained.{key}"])
    optimizer = run.optimizer.state_dict()
    optimizer["state"] = _nested(tensors, "optimizer.")
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
