"""The served model, which MLflow stores as code, so that no pickle is written.

This file is copied into the model version and runs there without stillhouse: it needs mlflow, numpy, pandas
and sentence-transformers. Shapes: B texts, D dimensions of the embedding.
"""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings

COLUMN = "text"
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


class Embedder(PythonModel):
    """Embeds texts for one of the release's tasks; a task's model is loaded at its first use."""

    def load_context(self, context: PythonModelContext) -> None:
        """Find the release's merged models, a Sentence Transformers folder for each task, and read the int8 ranges."""
        self._merged = Path(context.artifacts["merged"])
        text = Path(context.artifacts["calibration"]).read_text(encoding="utf-8")
        self._limits: dict[str, dict[str, float]] = json.loads(text)["int8_limit"]
        self._models: dict[str, SentenceTransformer] = {}
        self._lock = threading.Lock()  # the scoring server predicts in threads

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Embed each text as a row, which has unit length before it is rounded.

        Args:
            context: unused; MLflow's contract.
            model_input: one column of texts, named `text` where it has a name.
            params: `task`; `prompt`, which is `query` or `document`; `dimensions`, the first so many of the embedding
                (0: all); `precision`, one of PRECISIONS.

        Returns:
            [B, D]: float32; int8 or uint8 by the release's ranges; or eight dimensions a byte, binary as int8 and
            ubinary as uint8.

        Raises:
            MlflowException: for an unknown task, prompt or precision, too many dimensions, or another column.
        """
        params = params or {}
        task, precision = str(params.get("task", "retrieval")), str(params.get("precision", "float32"))
        model = self._model(task)
        dimensions = checked_dimensions(int(params.get("dimensions", 0)), model)
        prompt = checked_prompt(str(params.get("prompt", "document")), model)
        ranges = checked_ranges(precision, dimensions, self._limits[task])
        texts = checked_texts(model_input)
        if not texts:
            return rounded(np.zeros((0, dimensions), dtype=np.float32), precision, ranges)
        # truncate_dim cuts after the model's own normalisation; without the last argument rows are too short.
        vectors = model.encode(texts, prompt_name=prompt, truncate_dim=dimensions, normalize_embeddings=True)
        return rounded(vectors, precision, ranges)

    def _model(self, task: str) -> SentenceTransformer:
        tasks = sorted(path.name for path in self._merged.iterdir() if (path / "modules.json").is_file())
        if task not in tasks:
            raise refusal(f"unknown task '{task}': expected one of {', '.join(tasks)}")
        with self._lock:
            if task not in self._models:
                self._models[task] = SentenceTransformer(str(self._merged / task), local_files_only=True)
            return self._models[task]


def checked_dimensions(dimensions: int, model: SentenceTransformer) -> int:
    """Return the number of dimensions to give; 0 stands for all that the model has."""
    available = int(model.get_embedding_dimension() or 0)
    if not 0 <= dimensions <= available:
        raise refusal(f"dimensions={dimensions}: expected 1 to {available}, or 0 for all of them")
    return dimensions or available


def checked_prompt(prompt: str, model: SentenceTransformer) -> str:
    """Return the name if the model has a prompt of that name."""
    if prompt not in model.prompts:
        raise refusal(f"unknown prompt '{prompt}': expected one of {', '.join(sorted(model.prompts))}")
    return prompt


def checked_ranges(precision: str, dimensions: int, limits: dict[str, float]) -> np.ndarray | None:
    """Return both ends of each dimension's range, [2, D], if the precision has one.

    A range belongs to a number of dimensions, because the coordinates of a cut vector are larger.
    """
    if precision not in PRECISIONS:
        raise refusal(f"unknown precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if not precision.endswith("int8"):
        return None
    if str(dimensions) not in limits:
        known = ", ".join(sorted(limits, key=int))
        raise refusal(f"no {precision} range for dimensions={dimensions}: expected one of {known}")
    return np.outer([-1, 1], np.full(dimensions, limits[str(dimensions)])).astype(np.float32)


def rounded(vectors: np.ndarray, precision: Any, ranges: np.ndarray | None) -> np.ndarray:
    """Round vectors [B, D] to one of `PRECISIONS`."""
    return np.asarray(quantize_embeddings(vectors, precision=precision, ranges=ranges))


def checked_texts(model_input: pd.DataFrame) -> list[str]:
    """Return the texts of a frame whose only column is `text`, or has no name because it was a plain list."""
    column = model_input.columns[0]
    if column not in (COLUMN, 0):
        raise refusal(f"got a column named '{column}': expected one named '{COLUMN}', or a plain list of texts")
    texts: list[str] = model_input[column].tolist()
    if wrong := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        raise refusal(f"row {wrong[0]} is {texts[wrong[0]]!r}, expected a text ({len(wrong)} such rows)")
    return texts


def refusal(message: str) -> MlflowException:
    """Return an error of the caller, which the scoring server answers with status 400."""
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


set_model(Embedder())
