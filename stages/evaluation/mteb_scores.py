"""Scores of compared models as mteb computes them, kept by digests of model and rows so that none is computed twice.

Shapes: N texts, M texts, D embedding dimension.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from mteb._set_seed import _set_seed
from mteb.abstasks import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.cache import ResultCache
from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType
from torch import Tensor

from stages import evaluation, modeling
from stages.evaluation.compared_models import ComparedModels
from stages.evaluation.mteb_local_tasks import PREFIX
from stages.tracking.digests import digest

# The adapter for each of mteb's kinds of task, as the released v5 models route them.
ADAPTERS: Mapping[str, str] = {
    "retrieval": "retrieval",
    "semantic-similarity": "text-matching",
    "pair-classification": "text-matching",
    "clustering": "clustering",
    "classification": "classification",
}
# Name of the release as a whole: each task uses its own adapter.
ROUTED = "adapters"
# mteb's cache gives results back with six digits; a result that was just computed has more.
DIGITS = 6
# task -> model -> main score
Table = dict[str, dict[str, float]]


class MtebModel:
    """A compared model with the methods that mteb calls.

    Args:
        name: a name that `models` knows, or `ROUTED`.
        digest: digest of all that determines its vectors; mteb's cache keeps results under it.
    """

    def __init__(self, models: ComparedModels, name: str, digest: str) -> None:
        self._models, self._name = models, name
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": f"stillhouse/{name}", "revision": digest, "similarity_fn_name": ScoringFunction.COSINE}
        )

    def reads(self, task: AbsTask) -> bool:
        """Say whether there is a model for a task: only the release as a whole needs the adapter of its kind."""
        kinds = {part.metadata.simplified_task_type for part in task_parts(task)}
        return self._name != ROUTED or {ADAPTERS[kind] for kind in kinds} <= self._models.tasks

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **_kwargs: Any,
    ) -> np.ndarray:
        """Embed the texts of some batches: unit vectors [N, D]. Every text that is no query is a document."""
        texts = [text for batch in inputs for text in batch["text"]]
        side = "query" if prompt_type == PromptType.query else "document"
        name = ADAPTERS[task_metadata.simplified_task_type] if self._name == ROUTED else self._name
        source = task_metadata.dataset["path"] if task_metadata.name.startswith(PREFIX) else ""
        return self._models.embed(name, texts, side, source)

    def similarity(self, left: Any, right: Any) -> Tensor:
        """Cosines [N, M]."""
        return cos_sim(torch.as_tensor(left), torch.as_tensor(right))

    def similarity_pairwise(self, left: Any, right: Any) -> Tensor:
        """Cosines [N] of rows side by side."""
        return torch.as_tensor(pairwise_cos_sim(torch.as_tensor(left), torch.as_tensor(right)))


def mteb_scores(models: Mapping[str, MtebModel], tasks: Mapping[str, AbsTask], cache: Path) -> Table:
    """Compute the main score of every model on every task that it reads, in [0, 1], with `mteb.evaluate`.

    Args:
        cache: folder in which mteb keeps its results; known results of the same model, task and rows are reused.
    """
    logging.getLogger("mteb").setLevel(logging.ERROR)
    return {
        task_name: {name: _score(model, task, cache) for name, model in models.items() if model.reads(task)}
        for task_name, task in tasks.items()
    }


def _score(model: MtebModel, task: AbsTask, cache: Path) -> float:
    reset_draws(task)  # else a model's draws would depend on the models that were scored before it
    # A cache folder for each revision of the rows: mteb would take a complete result of another revision for this one.
    cache_of_rows = ResultCache(cache / task.metadata.dataset["revision"])
    found = mteb.evaluate(model, task, cache=cache_of_rows, co2_tracker=False, show_progress_bar=False)
    return round(float(found.task_results[0].get_score()), DIGITS)


def reset_draws(task: AbsTask) -> None:
    """Reset a task's random state to that of a new task."""
    for part in task_parts(task):
        part.rng_state, part.np_rng = _set_seed(part.seed)


def task_parts(task: AbsTask) -> list[AbsTask]:
    """List the tasks that an aggregated task consists of, or the task itself."""
    return list(task.tasks) if isinstance(task, AbsTaskAggregate) else [task]


def scoring_digest() -> str:
    """Identify this code, mteb and its libraries by twelve digits, since others might score otherwise."""
    parts = [digest(Path(package.__path__[0])) for package in (evaluation, modeling)]
    parts += [version(name) for name in ("mteb", "scikit-learn", "torch", "transformers")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
