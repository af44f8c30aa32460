"""The training loop of every phase; it knows no loss, and of the model only its backbone's layout.

An objective says which texts a batch needs and maps their embeddings to named, weighted loss terms. Every parameter of
it that requires a gradient is trained: the student, a projection, a temperature.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from stages.modeling.backbones import layers_of
from stages.objectives.objective import Objective
from stages.recipe.engine import Engine
from stages.recipe.training import Schedule
from stages.training.batches import EpochBatches
from stages.training.checkpoints import CheckpointFile
from stages.training.distributed import TrainingProcesses, unshard, whole
from stages.training.gradcache import StepBatch, backward, prepare
from stages.training.state import Curve, Log, TrainingState, resume, save, start, trainable
from stages.training.throughput import ThroughputMeter

# Steps whose batches are prepared ahead of the running step.
PREPARED_STEPS = 2
# A loss this many times the largest of the first steps has exploded: a healthy loss falls or stays where it began.
EXPLOSION, FIRST_STEPS = 5.0, 20


@dataclass(frozen=True)
class TrainingPhase:
    """A training phase: what it trains, on which rows, and how its progress is measured.

    Args:
        name: name on the progress bar.
        epoch_batches: returns the batches of row numbers of an epoch, over all processes; must be deterministic.
        row_ids: name of each row, to report the rows on which a loss failed.
        evaluate: dev metrics of the model as it stands.
    """

    name: str
    objective: Objective
    epoch_batches: EpochBatches
    row_ids: Sequence[str]
    evaluate: Callable[[], dict[str, float]]


def train(
    phase: TrainingPhase,
    schedule: Schedule,
    engine: Engine,
    checkpoint: CheckpointFile,
    log: Log,
    snapshot_at: int | None = None,
) -> tuple[Curve, dict[str, Tensor]]:
    """Train the objective of a phase in place, from its last checkpoint if there is one.

    >>> phase = TrainingPhase("distill", objective, epoch_batches, row_ids, evaluate)
    >>> curve, _ = train(phase, recipe.distill.training, recipe.engine, checkpoint, log=run.log_metrics)

    Args:
        schedule: `phase.evaluate` is called every `evaluate_every` steps and at the end.
        log: takes the figures of each step: a row of the curve, and the speed.
        snapshot_at: step at which to copy the trained tensors, for averaging.

    Returns:
        The curve, and the snapshot by parameter name (empty without `snapshot_at`).

    Raises:
        FloatingPointError: the loss or its gradient is not finite, or exploded; stopped.json beside the checkpoint
            names the rows.
    """
    processes, objective = TrainingProcesses(engine.processes), phase.objective
    is_writer = processes.rank == 0
    meter, whole_backbone = _set_up(objective, engine, processes)
    state = start(objective, schedule)
    resume(state, checkpoint, log)
    processes.check_same_step(state.step)
    batches = _prepared_ahead(
        _from_step(phase.epoch_batches, state.step, schedule.steps),
        lambda rows: prepare(objective, rows, engine.micro_batch_tokens, processes, objective.encoder.collate),
    )
    with tqdm(total=schedule.steps, initial=state.step, desc=phase.name, unit="step", disable=not is_writer) as bar:
        for batch in batches:
            meter.start()
            figures = _update(state, batch, processes, schedule.max_grad_norm)
            if failure := _failure(figures, state.curve):
                file = _save_failed_rows(checkpoint, state.step, batch, phase.row_ids, is_writer)
                raise FloatingPointError(f"{failure}; the rows of the batch are in {file}")
            speed = meter.stop(batch, objective.encoder.training_flops(batch.lengths))
            bar.update()
            if state.step == snapshot_at:
                state.snapshot = {key: whole(value.detach()).clone() for key, value in trainable(objective).items()}
            if state.step % schedule.evaluate_every == 0 or state.step == schedule.steps:
                objective.eval()
                figures |= {f"dev_{key}": value for key, value in phase.evaluate().items()}
            bar.set_postfix(_for_progress_bar(figures | speed), refresh=False)
            state.curve.append({"step": state.step, **figures})
            log(figures | speed, state.step)
            if state.step % schedule.checkpoint_every == 0 or state.step == schedule.steps:
                save(state, checkpoint, is_writer)
    if whole_backbone is not None:
        unshard(objective.encoder, whole_backbone)
    return state.curve, state.snapshot


def _set_up(
    objective: Objective, engine: Engine, processes: TrainingProcesses
) -> tuple[ThroughputMeter, nn.Module | None]:
    """Bring the objective to its device and arrange the backbone as section `engine` says.

    Returns:
        The meter of the steps and, where the weights are sharded, the whole backbone for `unshard`.
    """
    objective.to(processes.device)
    encoder = objective.encoder
    encoder.arrange(engine.precision, engine.packing)
    if engine.gradient_checkpointing:
        encoder.backbone.activation_checkpointing_enable({"use_reentrant": False})
    whole_backbone = processes.shard(encoder) if engine.shard else None
    if engine.compile:
        for layer in layers_of(encoder.backbone):  # all layers are alike: compiled once, in a fraction of the time
            layer.compile(dynamic=True)
    return ThroughputMeter(processes.device, encoder.precision, processes.count), whole_backbone


def _prepared_ahead(
    batches: Iterator[np.ndarray], prepare_batch: Callable[[np.ndarray], StepBatch]
) -> Iterator[StepBatch]:
    """Yield batches that a thread prepares while earlier ones train."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = [thread.submit(prepare_batch, rows) for rows in itertools.islice(batches, PREPARED_STEPS)]
        while waiting:
            batch = waiting.pop(0).result()
            waiting += [thread.submit(prepare_batch, rows) for rows in itertools.islice(batches, 1)]
            yield batch


def _from_step(epoch_batches: EpochBatches, done: int, steps: int) -> Iterator[np.ndarray]:
    """Yield the batches of the steps after `done`, epoch after epoch."""
    all_batches = itertools.chain.from_iterable(map(epoch_batches, itertools.count()))
    return itertools.islice(all_batches, done, steps)


def _for_progress_bar(figures: dict[str, float]) -> dict[str, str]:
    shown = {key: f"{value:.3f}" for key, value in figures.items() if key.startswith(("loss", "dev"))}
    return shown | {"tokens/s": f"{figures['tokens_per_second']:.0f}", "mfu": f"{figures['mfu']:.2f}"}


def _update(
    state: TrainingState, batch: StepBatch, processes: TrainingProcesses, max_grad_norm: float
) -> dict[str, float]:
    """Take a step of the optimizer, unless the loss or its gradient is not finite; return the step's figures."""
    state.objective.train()
    losses = {name: value.item() for name, value in backward(state.objective, batch, processes).items()}
    state.step += 1
    norm = _clip(list(trainable(state.objective).values()), max_grad_norm)
    loss = sum(losses.values())
    if math.isfinite(loss + norm):
        state.optimizer.step()
        state.scheduler.step()
    state.optimizer.zero_grad()
    return {"loss": loss, **losses, "learning_rate": float(state.scheduler.get_last_lr()[0]), "gradient_norm": norm}


def _clip(parameters: list[nn.Parameter], max_grad_norm: float) -> float:
    """Scale the gradients to a norm of at most `max_grad_norm`; return the norm before scaling."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ computes it
    for gradient in gradients:
        gradient.mul_(scale)
    return float(norm)


def _failure(figures: dict[str, float], curve: Curve) -> str | None:
    """Say why training must stop after a step: a figure is not finite, or the loss is far above where it began."""
    at = f"at step {len(curve) + 1}: {figures}"
    for key, name in (("loss", "loss"), ("gradient_norm", "gradient")):
        if not math.isfinite(figures[key]):
            return f"the {name} is not finite {at}; look at the texts of its rows, or lower the learning rate"
    first = [row["loss"] for row in curve[:FIRST_STEPS]]
    if len(first) == FIRST_STEPS and figures["loss"] > EXPLOSION * max(first):
        began = f"{max(first):.4g}, the largest loss of the first {FIRST_STEPS} steps"
        return f"the loss exploded: over {EXPLOSION:g} times {began}, {at}; lower the learning rate"
    return None


def _save_failed_rows(
    checkpoint: CheckpointFile, step: int, batch: StepBatch, row_ids: Sequence[str], is_writer: bool
) -> str:
    """Write the numbers and names of a failed batch's rows beside the checkpoint; return the file's path."""
    path = checkpoint.path.with_name("stopped.json")
    if is_writer:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"step": step, "rows": batch.rows.tolist(), "ids": [row_ids[row] for row in batch.rows]}
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return str(path)
