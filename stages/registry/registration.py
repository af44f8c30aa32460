"""Registers a release as a model version: logged as a pyfunc model, loaded back, asked for vectors."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from stages.registry import store
from stages.registry.ledger import make_registered_model
from stages.tracking.digests import digest

SERVING = Path(__file__).parents[1] / "modeling" / "serving.py"
SERVED_WITH = ("mlflow", "numpy", "pandas", "sentence-transformers", "torch", "transformers")


def register(client: MlflowClient, name: str, release: Path, run_id: str) -> ModelVersion:
    """Log the release as a pyfunc model, load it back and ask it for vectors; only then make it a version."""
    example = pd.DataFrame({"text": ["a first sentence to embed", "a second one"]})
    tasks = sorted(path.name for path in (release / "merged").iterdir())
    default = "retrieval" if "retrieval" in tasks else tasks[0]
    parameters = {"task": default, "prompt": "document", "dimensions": 0, "precision": "float32"}
    with mlflow.start_run(run_id=run_id):
        model = mlflow.pyfunc.log_model(
            name="embedder",
            python_model=str(SERVING),
            artifacts={"merged": str(release / "merged"), "calibration": str(release / "calibration.json")},
            signature=signature(default),
            input_example=(example, parameters),
            pip_requirements=[requirement(package) for package in SERVED_WITH],
        )
    check_served(model.model_uri, example, tasks)
    make_registered_model(client, name)
    number = str(mlflow.register_model(model.model_uri, name, tags={"release_digest": digest(release)}).version)
    served = store.served_digest(client, client.get_model_version(name, number))
    client.set_model_version_tag(name, number, "served_digest", served)
    return client.get_model_version(name, number)


def requirement(package: str) -> str:
    """Return the pin of an installed package, without the build's mark that only torch's own index knows (`+cpu`)."""
    return f"{package}=={installed_version(package).partition('+')[0]}"


def signature(default_task: str) -> ModelSignature:
    """Return the served model's signature: a column of texts in, a row for each text out.

    The column has no name, so that a plain list of texts will do. The row is of float32 unless `precision` says
    otherwise, which a signature cannot express.
    """
    task = ParamSpec("task", "string", default_task)
    dimensions = ParamSpec("dimensions", "long", 0)
    prompt = ParamSpec("prompt", "string", "document")
    precision = ParamSpec("precision", "string", "float32")
    return ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
        params=ParamSchema([task, prompt, dimensions, precision]),
    )


def check_served(model_uri: str, texts: Any, tasks: Sequence[str]) -> None:
    """Load the logged model as a consumer would, and embed with every task.

    Raises:
        RuntimeError: a task's vectors are not finite or not of unit length.
    """
    model = mlflow.pyfunc.load_model(model_uri)
    for task in tasks:
        norms = np.linalg.norm(model.predict(texts, params={"task": task}), axis=1)
        if not np.allclose(norms, 1.0, atol=1e-3):
            raise RuntimeError(f"promote: {task} of {model_uri} gives vectors of length {norms}, expected 1")


def served_cosine(
    version: ModelVersion, texts: Mapping[str, Sequence[str]], vectors: Mapping[str, np.ndarray]
) -> float:
    """Return the least cosine between the vectors that the registered retrieval model gives and known ones.

    Args:
        version: the registered version.
        texts: texts by side, `query` and `document`.
        vectors: vectors by side, [at least number of texts, D]: the first rows are those of the texts.
    """
    model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
    cosines = [1.0]
    for side, texts_of_side in texts.items():
        served = np.asarray(model.predict(list(texts_of_side), params={"task": "retrieval", "prompt": side}))
        cosines.extend((served * vectors[side][: len(texts_of_side)]).sum(axis=1))
    return float(np.min(cosines))  # NaN if there is one, unlike `min`
