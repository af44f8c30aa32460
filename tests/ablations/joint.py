"""Joint: one LoRA adapter trained on the objectives of all four tasks in turn, to compare the four adapters with.

It takes as many steps of each task as that task's adapter, in random order, with the rank, learning rate and averaging
of the retrieval adapter, and is saved as data/adapted/joint.
"""

if __name__ == "__main__":  # The recipe is checked and the processes are started before torch is imported.
    from stages.recipe.recipe import load
    from stages.training.launch import launch

    launch(["tests.ablations.joint"], load().engine.processes)

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from stages.adapt import PHASES, adapt
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.recipe.recipe import Recipe, load
from stages.training.batches import mixed_batches
from stages.training.loop import TrainingPhase


class JointObjective(Objective):
    """The rows of several objectives, in their order; a batch holds rows of a single objective, whose loss it takes."""

    needs_base = True  # the classification objective reads the base, and the loop asks once for all

    def __init__(self, encoder: Encoder, objectives: Sequence[Objective], sizes: Sequence[int]) -> None:
        super().__init__(encoder)
        self.objectives = nn.ModuleList(objectives)
        self.starts = np.cumsum([0, *sizes])[:-1]

    def texts(self, rows: np.ndarray) -> Tokens:
        """Return the texts of the rows' objective."""
        objective, own = self.owner(rows)
        return objective.texts(own)

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None) -> dict[str, Tensor]:
        """Return the terms of the rows' objective, from embeddings [M, D] with and without the adapter."""
        objective, own = self.owner(rows)
        terms: dict[str, Tensor] = objective(own, embeddings, base)
        return terms

    def owner(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return the objective that rows belong to, and their numbers in it."""
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        assert (owners == owners[0]).all(), "a batch holds rows of one objective"
        return self.objectives[int(owners[0])], rows - self.starts[owners[0]]


def main(recipe: Recipe) -> None:
    """Train the joint adapter."""
    training = recipe.adapt.retrieval.training.model_copy(update={"steps": sum(steps(recipe))})
    settings = recipe.adapt.retrieval.model_copy(update={"training": training})
    # The settings are those of retrieval, but all four tasks decide what is trained.
    recorded = recipe.model_dump(include={"name", "seed", "engine", "adapt"}) | settings.model_dump()
    adapt("joint", recipe, settings, joint, recorded)


def steps(recipe: Recipe) -> list[int]:
    """Return the steps of each task's adapter, in the order of `PHASES`."""
    return [getattr(recipe.adapt, task.replace("-", "_")).training.steps for task in PHASES]


def joint(recipe: Recipe, encoder: Encoder, projection: nn.Linear) -> TrainingPhase:
    """Join the phases of the four tasks; a step draws a task in proportion to the steps of the task's adapter."""
    phases = [build(recipe, encoder, projection) for build in PHASES.values()]
    objective = JointObjective(encoder, [phase.objective for phase in phases], [len(phase.row_ids) for phase in phases])

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        batches = [
            [rows + start for rows in phase.epoch_batches(epoch)]
            for start, phase in zip(objective.starts, phases, strict=True)
        ]
        return mixed_batches(batches, steps(recipe), recipe.seed, epoch)

    row_ids = [row for phase in phases for row in phase.row_ids]
    return TrainingPhase("adapt joint", objective, epoch_batches, row_ids, phases[0].evaluate)


if __name__ == "__main__":
    main(load())
