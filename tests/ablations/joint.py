"""Joint: one LoRA adapter trained on the objectives of all four tasks in turn, to hold the four adapters against.

It takes as many steps of each task as that task's adapter, in random order, with the rank, learning rate and averaging
of the retrieval adapter, and is saved as data/adapted/joint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from stages.adapt import classification, clustering, retrieval, text_matching
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.recipe.recipe import Recipe, load
from stages.training.adaptation import adapt
from stages.training.batches import mixed_batches
from stages.training.dev import retrieval_on_dev
from stages.training.launch import launch

CURATED = Path("data/curated")
INPUTS = (CURATED, Path("data/embedded"), Path("data/mined"), Path("data/extended"))


class Joint(Objective):
    """Rows of several objectives one after another; a batch holds rows of one, whose loss it has."""

    needs_base = True  # of one of them: the engine asks once for all

    def __init__(self, encoder: Encoder, objectives: Sequence[Objective], sizes: Sequence[int]) -> None:
        super().__init__(encoder)
        self.objectives = nn.ModuleList(objectives)
        self.starts = np.cumsum([0, *sizes])[:-1]

    def texts(self, rows: np.ndarray) -> Tokens:
        """Those of the rows' own objective."""
        objective, own = self.owner(rows)
        return objective.texts(own)

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None) -> dict[str, Tensor]:
        """Row numbers [B] and embeddings [M, D], with and without the adapter -> the terms of the rows' objective."""
        objective, own = self.owner(rows)
        terms: dict[str, Tensor] = objective(own, embeddings, base)
        return terms

    def owner(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        """The objective that rows belong to, and their numbers in it."""
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        assert (owners == owners[0]).all(), "a batch holds rows of one objective"
        return self.objectives[int(owners[0])], rows - self.starts[owners[0]]


def main() -> None:
    """Run the stage."""
    params = load()
    launch(["tests.ablations.joint"], params.engine.processes)
    adapters = params.adapt
    training = adapters.retrieval.training
    settings = adapters.retrieval.model_copy(
        update={"training": training.model_copy(update={"steps": sum(steps(params))})}
    )
    section = {"name": params.name, "seed": params.seed, "engine": params.engine.model_dump()}
    sources = [draw.source for draw in settings.mixture]
    adapt(
        "joint",
        # The settings above are retrieval's; all four decide what is trained.
        {**section, "adapt": adapters.model_dump()},
        settings,
        lambda encoder, projection: build(params, encoder, projection),
        lambda encoder: retrieval_on_dev(encoder, CURATED, sources),
        max_tokens=max(draw.max_tokens for draw in settings.mixture),
        inputs=INPUTS,
        average=(settings.average.earlier, settings.average.weight),
    )


def steps(params: Recipe) -> list[int]:
    """Steps of each task's adapter, in the order of `build`."""
    adapters = params.adapt
    tasks = (adapters.retrieval, adapters.text_matching, adapters.clustering, adapters.classification)
    return [task.training.steps for task in tasks]


def build(params: Recipe, encoder: Encoder, projection: nn.Linear) -> Any:
    """The joint objective, its batches, each of a task drawn in proportion to its steps, and its rows' names."""
    parts = [
        retrieval.build(params, encoder, projection),
        text_matching.build(params, encoder, projection),
        clustering.build(params, encoder, projection),
        classification.build(params, encoder),
    ]
    objective = Joint(encoder, [part[0] for part in parts], [len(ids) for _, _, ids in parts])

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        batches = [
            [rows + start for rows in of_epoch(epoch)]
            for start, (_, of_epoch, _) in zip(objective.starts, parts, strict=True)
        ]
        return mixed_batches(batches, steps(params), params.seed, epoch)

    return objective, epoch_batches, [name for _, _, ids in parts for name in ids]


if __name__ == "__main__":
    main()
