"""Stage 2 for any task: a LoRA adapter on the frozen student, trained by the task's objective, saved by name."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from stages.modeling.adapters import add_adapter, average_adapter, save_adapter
from stages.modeling.encoder import Encoder, saved_encoder
from stages.modeling.projection import read_projection
from stages.objectives.objective import Objective
from stages.tracking.main_process import first
from stages.tracking.runs import stage_run
from stages.training.checkpoints import checkpoint_file, run_key
from stages.training.curves import write_curve
from stages.training.loop import EngineSettings, EpochBatches, train
from stages.training.state import Schedule

EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")

# Objective, batches of an epoch, and the name of each row.
Training = tuple[Objective, EpochBatches, Sequence[str]]
Build = Callable[[Encoder, nn.Linear], Training]


class AdapterSettings(Protocol):
    """What every task's section of a recipe has: `lora`, `rope_theta` and `training`."""

    lora: Any
    rope_theta: float | None
    training: Any

    def model_dump(self) -> dict[str, Any]:
        """The section as plain data."""


def adapt(
    task: str,
    recipe: Mapping[str, Any],
    settings: AdapterSettings,
    build: Build,
    evaluate: Callable[[Encoder], dict[str, float]],
    *,
    max_tokens: int,
    inputs: Sequence[Path],
    average: tuple[float, float] | None = None,
) -> None:
    """Train and save one adapter as data/adapted/<task>/, with its curve.csv beside the PEFT files.

    Args:
        recipe: name, seed and engine of the recipe.
        settings: the task's section; with the recipe's it is recorded and part of the checkpoint's key.
        build: makes the objective, its batches and its rows' names from the encoder, its new adapter on, and the
            projection of stage 1.
        evaluate: dev metrics of the encoder.
        max_tokens: where the encoder cuts texts, dev texts among them.
        average: (share of the steps at which to keep a snapshot, its weight in the final mean).
    """
    engine = EngineSettings(**recipe["engine"])
    torch.set_num_threads(engine.threads)
    torch.manual_seed(recipe["seed"])
    section = {**recipe, **settings.model_dump()}
    schedule = Schedule(**settings.training.model_dump(exclude={"batch_size"}))
    snapshot_at = None if average is None else max(1, round(average[0] * schedule.steps))
    with stage_run(stage=f"adapt@{task}", params=section, inputs=inputs) as run:
        encoder = saved_encoder(EXTENDED / "student", settings.rope_theta, max_tokens)
        add_adapter(encoder, task, settings.lora.rank, settings.lora.alpha)
        objective, epoch_batches, ids = build(encoder, read_projection(EXTENDED / "projection.safetensors"))
        with checkpoint_file(f"adapt-{task}", run_key(section, inputs), writer=first()) as checkpoint:
            curve, snapshot = train(
                objective,
                epoch_batches,
                schedule,
                checkpoint,
                engine=engine,
                ids=ids,
                name=f"adapt {task}",
                evaluate=lambda: evaluate(encoder),
                log=run.log_metrics,
                snapshot_at=snapshot_at,
            )
            if average is not None:
                kept = {key.removeprefix("encoder."): value for key, value in snapshot.items() if "lora_" in key}
                average_adapter(encoder, kept, average[1])
                run.log_metrics({f"averaged_dev_{name}": value for name, value in evaluate(encoder).items()})
            if first():
                write(encoder, task, curve)
            # Before the checkpoint goes: where MLflow is away, the next try has nothing to train again.
            run.log_artifact(ADAPTED / task / "curve.csv")


def write(encoder: Encoder, task: str, curve: list[dict[str, float]]) -> None:
    """Write the adapter and its curve in the place of an earlier one."""
    shutil.rmtree(ADAPTED / task, ignore_errors=True)
    save_adapter(encoder, task, ADAPTED / task)
    write_curve(ADAPTED / task / "curve.csv", curve)
