"""Our engine's steps timed from outside, by the log line that it writes after each."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.objectives.objective import Objective
from stages.recipe.recipe import Recipe, read
from stages.recipe.training import Schedule
from stages.training.checkpoints import CheckpointFile
from stages.training.loop import TrainingPhase, train

ROOT = Path(__file__).resolve().parents[2]
LEARNING_RATE, WARM_STEPS = 1e-4, 4


@dataclass(frozen=True)
class Timed:
    """Steps after the first few."""

    seconds: float
    tokens: int
    padding_share: float
    lengths: list[np.ndarray]  # tokens of the texts of each step
    first: dict[str, float]  # what the very first step logged

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def recipe() -> Recipe:
    """The default recipe, for its settings of the engine."""
    return read(ROOT / "params.yaml")


def timed_steps(
    objective: Objective, batches: Sequence[np.ndarray], warm_steps: int = WARM_STEPS, **engine: Any
) -> Timed:
    """Train on all batches as a stage does, the first `warm_steps` outside of the clock.

    Args:
        engine: settings that are not the default recipe's.
    """
    settings = recipe().engine.model_copy(update={"threads": torch.get_num_threads()} | engine)
    stamps: list[float] = []
    rows: list[dict[str, float]] = []

    def log(row: dict[str, float], _step: int) -> None:
        stamps.append(time.perf_counter())
        rows.append(row)

    never = len(batches) + 1  # so that neither evaluation nor checkpoint is timed
    schedule = Schedule(
        steps=len(batches),
        learning_rate=LEARNING_RATE,
        warmup_ratio=0.0,
        weight_decay=0.01,
        max_grad_norm=1.0,
        evaluate_every=never,
        checkpoint_every=never,
    )
    phase = TrainingPhase("bench", objective, lambda _epoch: list(batches), [], dict)
    with tempfile.TemporaryDirectory() as folder:
        train(phase, schedule, settings, CheckpointFile(Path(folder) / "checkpoint.safetensors"), log)
    lengths = [objective.texts(batch).lengths for batch in batches[warm_steps:]]
    return Timed(
        stamps[-1] - stamps[warm_steps - 1],
        int(sum(one.sum() for one in lengths)),
        float(np.mean([row["padding_share"] for row in rows[warm_steps:]])),
        lengths,
        rows[0],
    )
