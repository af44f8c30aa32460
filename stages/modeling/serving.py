"""The served model, as MLflow stores it: models from code, so that no pickle is written.

This file is copied into the model version and runs there without stillhouse: it needs mlflow, numpy, pandas
and sentence-transformers. Shapes: B texts, D dimensions of the embedding.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

COLUMN = "text"


class Embedder(PythonModel):
    """Texts to embeddings of one of the release's tasks; a task's model is loaded at its first use."""

    def load_context(self, context: PythonModelContext) -> None:
        """Remember where the release's merged models are: one Sentence Transformers folder a task."""
        self._merged = Path(context.artifacts["merged"])
        self._models: dict[str, SentenceTransformer] = {}
        self._lock = threading.Lock()  # the scoring server predicts in threads

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Embed each text as one row of unit length.

        Args:
            context: unused; MLflow's contract.
            model_input: one column of texts, named `text` where it has a name.
            params: `task`; `dimensions`, the first so many of the embedding (0: all); `prompt_name`, which is
                `query` or `document`.

        Returns:
            float32, [B, D].

        Raises:
            MlflowException: for an unknown task or prompt, too many dimensions, or another column.
        """
        params = params or {}
        model = self._model(str(params.get("task", "retrieval")))
        dimensions = checked_dimensions(int(params.get("dimensions", 0)), model)
        prompt = checked_prompt(str(params.get("prompt_name", "document")), model)
        texts = checked_texts(model_input)
        if not texts:
            return np.zeros((0, dimensions), dtype=np.float32)
        # truncate_dim cuts after the model's own normalisation; without the last argument rows are too short.
        return model.encode(texts, prompt_name=prompt, truncate_dim=dimensions, normalize_embeddings=True)

    def _model(self, task: str) -> "SentenceTransformer":
        tasks = sorted(path.name for path in self._merged.iterdir() if (path / "modules.json").is_file())
        if task not in tasks:
            raise refusal(f"unknown task '{task}': expected one of {', '.join(tasks)}")
        with self._lock:
            if task not in self._models:
                from sentence_transformers import SentenceTransformer

                self._models[task] = SentenceTransformer(str(self._merged / task), local_files_only=True)
            return self._models[task]


def checked_dimensions(dimensions: int, model: "SentenceTransformer") -> int:
    """The number of dimensions to give: 0 stands for all that the model has."""
    available = int(model.get_embedding_dimension() or 0)
    if not 0 <= dimensions <= available:
        raise refusal(f"dimensions={dimensions}: expected 1 to {available}, or 0 for all of them")
    return dimensions or available


def checked_prompt(prompt_name: str, model: "SentenceTransformer") -> str:
    """The name, if the model has a prompt of that name."""
    if prompt_name not in model.prompts:
        raise refusal(f"unknown prompt '{prompt_name}': expected one of {', '.join(sorted(model.prompts))}")
    return prompt_name


def checked_texts(model_input: pd.DataFrame) -> list[str]:
    """The texts of a frame whose only column is `text`, or has no name because they came as a plain list."""
    column = model_input.columns[0]
    if column not in (COLUMN, 0):
        raise refusal(f"got a column named '{column}': expected one named '{COLUMN}', or a plain list of texts")
    texts: list[str] = model_input[column].tolist()
    if wrong := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        raise refusal(f"row {wrong[0]} is {texts[wrong[0]]!r}, expected a text ({len(wrong)} such rows)")
    return texts


def refusal(message: str) -> MlflowException:
    """An error of the caller's, which the scoring server answers with status 400."""
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


set_model(Embedder())
