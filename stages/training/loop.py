"""The training loop, the same for every phase: it knows steps and named loss terms, no model and no loss.

An objective says which texts a batch needs and maps their embeddings to named, weighted loss terms; whatever of it
requires a gradient is trained: the student, a projection, a temperature.
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
from stages.training.checkpoints import CheckpointFile
from stages.training.distributed import Processes, unshard, whole
from stages.training.gradcache import Batch, backward, prepare
from stages.training.state import Curve, Run, Schedule, resume, save, start, trained
from stages.training.throughput import Meter

EpochBatches = Callable[[int], list[np.ndarray]]

# Steps made ready ahead of the one that runs.
PREPARED_STEPS = 2
# A loss this many times the largest of the first steps has exploded: it starts high and falls, or stays where it is.
EXPLOSION, FIRST_STEPS = 5.0, 20


@dataclass(frozen=True)
class EngineSettings:
    """How a phase runs; none of it changes what is learned but for rounding."""

    threads: int
    processes: int
    precision: str
    micro_batch_tokens: int
    packing: bool
    gradient_checkpointing: bool
    compile: bool
    shard: bool


def train(
    objective: Objective,
    epoch_batches: EpochBatches,
    schedule: Schedule,
    checkpoint: CheckpointFile,
    *,
    engine: EngineSettings,
    ids: Sequence[str],
    name: str,
    evaluate: Callable[[], dict[str, float]],
    log: Callable[[dict[str, float], int], None],
    snapshot_at: int | None = None,
) -> tuple[Curve, dict[str, Tensor]]:
    """Train an objective in place, from its last checkpoint if there is one.

    Args:
        epoch_batches: batches of row numbers of an epoch, of all processes, the same whenever the epoch is asked for.
        ids: name of each row, to say which ones a loss failed on.
        evaluate: dev metrics of the model as it stands, called every `evaluate_every` steps and at the end.
        log: takes a step's figures: a row of the curve, and how fast it went.
        snapshot_at: step at which to keep a copy of the trained tensors, for averaging.

    Returns:
        The curve, and the snapshot by parameter name (empty without `snapshot_at`).

    Raises:
        FloatingPointError: the loss or its gradient is not finite, or exploded; the rows are kept in stopped.json.
    """
    processes = Processes(engine.processes)
    meter, whole_backbone = _set_up(objective, engine, processes)
    run = start(objective, schedule)
    resume(run, checkpoint, log)
    processes.check_alike(run.step)
    batches = _ahead(
        _from_step(epoch_batches, run.step, schedule.steps),
        lambda rows: prepare(objective, rows, engine.micro_batch_tokens, processes, objective.encoder.collate),
    )
    with tqdm(total=schedule.steps, initial=run.step, desc=name, unit="step", disable=processes.rank > 0) as bar:
        for batch in batches:
            meter.start()
            terms = _update(run, batch, processes, schedule.max_grad_norm)
            if fault := _fault(terms, run.curve):
                kept = _keep(checkpoint, run, batch, ids, writes=processes.rank == 0)
                raise FloatingPointError(f"{fault}; its rows are kept in {kept}")
            speed = meter.stop(batch, objective.encoder.training_flops(batch.lengths))
            bar.update()
            if run.step == snapshot_at:
                run.snapshot = {key: whole(value.detach()).clone() for key, value in trained(objective).items()}
            if run.step % schedule.evaluate_every == 0 or run.step == schedule.steps:
                objective.eval()
                terms |= {f"dev_{key}": value for key, value in evaluate().items()}
            bar.set_postfix(_shown(terms | speed), refresh=False)
            run.curve.append({"step": run.step, **terms})
            log(terms | speed, run.step)
            if run.step % schedule.checkpoint_every == 0 or run.step == schedule.steps:
                save(run, checkpoint, writes=processes.rank == 0)
    if whole_backbone is not None:
        unshard(objective.encoder, whole_backbone)
    return run.curve, run.snapshot


def _set_up(objective: Objective, engine: EngineSettings, processes: Processes) -> tuple[Meter, nn.Module | None]:
    """Bring the objective to its device and arrange the backbone as the engine's settings say.

    Returns:
        What measures the steps; where the weights are spread, the whole backbone for `unshard`.
    """
    objective.to(processes.device)
    encoder = objective.encoder
    encoder.arrange(engine.precision, engine.packing)
    if engine.gradient_checkpointing:
        encoder.backbone.activation_checkpointing_enable({"use_reentrant": False})
    whole_backbone = processes.shard(encoder) if engine.shard else None
    if engine.compile:
        for layer in layers_of(encoder.backbone):  # all alike: compiled once, a backbone in a fraction of its time
            layer.compile(dynamic=True)
    return Meter(processes.device, encoder.precision, processes.count), whole_backbone


def _ahead(rows: Iterator[np.ndarray], prepared: Callable[[np.ndarray], Batch]) -> Iterator[Batch]:
    """Batches made ready in a thread while earlier ones train."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = [thread.submit(prepared, one) for one in itertools.islice(rows, PREPARED_STEPS)]
        while waiting:
            batch = waiting.pop(0).result()
            waiting += [thread.submit(prepared, one) for one in itertools.islice(rows, 1)]
            yield batch


def _shown(figures: dict[str, float]) -> dict[str, str]:
    """What stands on the progress bar."""
    shown = {key: f"{value:.3f}" for key, value in figures.items() if key.startswith(("loss", "dev"))}
    return shown | {"tokens/s": f"{figures['tokens_per_second']:.0f}", "mfu": f"{figures['mfu']:.2f}"}


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


def _update(run: Run, batch: Batch, processes: Processes, max_grad_norm: float) -> dict[str, float]:
    """One optimizer step, unless its loss or gradient is not finite."""
    run.objective.train()
    losses = {name: value.item() for name, value in backward(run.objective, batch, processes).items()}
    run.step += 1
    norm = _clip(list(trained(run.objective).values()), max_grad_norm)
    loss = sum(losses.values())
    if math.isfinite(loss + norm):
        run.optimizer.step()
        run.scheduler.step()
    run.optimizer.zero_grad()
    return {"loss": loss, **losses, "learning_rate": float(run.scheduler.get_last_lr()[0]), "gradient_norm": norm}


def _fault(terms: dict[str, float], curve: Curve) -> str | None:
    """Why training must stop after a step: what is not finite, or a loss far above where it began."""
    at = f"at step {len(curve) + 1}: {terms}"
    if not math.isfinite(terms["loss"]):
        return f"the loss is not finite {at}; look at the texts of its rows, or lower the learning rate"
    if not math.isfinite(terms["gradient_norm"]):
        return f"the gradient is not finite {at}; look at the texts of its rows, or lower the learning rate"
    first = [row["loss"] for row in curve[:FIRST_STEPS]]
    if len(first) == FIRST_STEPS and terms["loss"] > EXPLOSION * max(first):
        return f"the loss exploded: over {EXPLOSION} times its first {max(first):.4g} {at}; lower the learning rate"
    return None


def _clip(parameters: list[nn.Parameter], max_grad_norm: float) -> float:
    """Scale the gradients to a norm of at most `max_grad_norm`; returns the norm before."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    norms = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ has it
    for gradient in gradients:
        gradient.mul_(scale)
    return float(norm)


def _keep(checkpoint: CheckpointFile, run: Run, batch: Batch, ids: Sequence[str], *, writes: bool) -> str:
    """Write the names of a failed batch's rows beside the checkpoint; returns where."""
    path = checkpoint.path.with_name("stopped.json")
    if writes:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"step": run.step, "rows": batch.rows.tolist(), "ids": [ids[row] for row in batch.rows]}
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return str(path)
