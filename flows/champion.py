"""The champion of a recipe's registered model in MLflow, and addresses of MLflow's pages."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.workspace import MLFLOW_LOCK
from stages.recipe.paths import MLFLOW, store_address

METRIC = "metric."  # tags that stages.promote gives a version


@dataclass(frozen=True)
class Champion:
    """The version that is served now, and its figures."""

    version: str
    figures: Mapping[str, float]


def mlflow_client(home: Path) -> MlflowClient:
    """Return a client of the server in MLFLOW_TRACKING_URI, or else of a checkout's own store."""
    with FileLock((home / MLFLOW_LOCK).resolve()):  # a new file's first client makes the schema, and two would fail
        return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store_address((home / MLFLOW).resolve()))


def read_champion(home: Path, recipe: Mapping[str, Any]) -> Champion | None:
    """Return the champion of a recipe's registered model; None where there is none yet."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home / MLFLOW).is_file():
        return None
    try:
        version = mlflow_client(home).get_model_version_by_alias(recipe["promote"]["registered_model"], "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    figures = {key.removeprefix(METRIC): float(value) for key, value in version.tags.items() if key.startswith(METRIC)}
    return Champion(str(version.version), figures)


def links(promoted: Mapping[str, Any]) -> list[str]:
    """Return Markdown links to a version's page and to its run, where MLflow is a server that has pages."""
    scheme, _, host = os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")
    if not scheme.startswith("http"):
        return []
    root = f"{scheme}://{host.rpartition('@')[2].rstrip('/')}/#"
    return [
        f"[version {promoted['version']}]({root}/models/{promoted['name']}/versions/{promoted['version']})",
        f"[run and report]({root}/runs/{promoted['run_id']}/artifacts)",
    ]
