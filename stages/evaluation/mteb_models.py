"""Contenders as mteb sees them: each text under its side's prompt, each task through its adapter.

Shapes: N texts, M texts, D embedding dimension.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType
from torch import Tensor

from stages.evaluation.compared_models import Contenders
from stages.evaluation.mteb_tasks import PREFIX

# The released v5 models' routing of mteb's kinds of task to adapters.
ADAPTERS: Mapping[str, str] = {
    "retrieval": "retrieval",
    "semantic-similarity": "text-matching",
    "pair-classification": "text-matching",
    "clustering": "clustering",
    "classification": "classification",
}
# The release: the adapter that the task asks for.
ROUTED = "adapters"


class MtebModel:
    """A contender with the two methods that mteb calls.

    Args:
        name: of a contender, or `ROUTED`.
        digest: of all that decides its vectors; mteb's cache keeps results by it.
    """

    def __init__(self, contenders: Contenders, name: str, digest: str) -> None:
        self._contenders, self._name = contenders, name
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": f"stillhouse/{name}", "revision": digest, "similarity_fn_name": ScoringFunction.COSINE}
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_kwargs: Any,
    ) -> np.ndarray:
        """Unit vectors [N, D] of the texts of some batches; a text that is no query is a document."""
        texts = [text for batch in inputs for text in batch["text"]]
        side = "query" if prompt_type == PromptType.query else "document"
        name = ADAPTERS[task_metadata.simplified_task_type] if self._name == ROUTED else self._name
        source = task_metadata.dataset["path"] if task_metadata.name.startswith(PREFIX) else ""
        return self._contenders.embed(name, texts, side, source)

    def similarity(self, left: Any, right: Any) -> Tensor:
        """Cosines [N, M]."""
        return cos_sim(torch.as_tensor(left), torch.as_tensor(right))

    def similarity_pairwise(self, left: Any, right: Any) -> Tensor:
        """Cosines [N] of rows side by side."""
        return torch.as_tensor(pairwise_cos_sim(torch.as_tensor(left), torch.as_tensor(right)))
