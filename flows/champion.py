"""What MLflow's registry says about a recipe's champion, and addresses of its pages."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from flows.workspace import MLFLOW, MLFLOW_LOCK

METRIC = "metric."  # tags that stages.promote gives a version


@dataclass(frozen=True)
class Champion:
    """The version that is served now, and its figures."""

    version: str
    figures: Mapping[str, float]


def read_champion(home: Path, recipe: Mapping[str, Any]) -> Champion | None:
    """The champion of a recipe's registered model; None where there is none yet."""
    name = recipe["promote"]["registered_model"]
    store = home / MLFLOW
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address and not store.is_file():
        return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with FileLock(home / MLFLOW_LOCK):  # a new file's first client makes the schema, and two would fail
        client = MlflowClient(address or f"sqlite:///{store}")
    try:
        version = client.get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    figures = {key.removeprefix(METRIC): float(value) for key, value in version.tags.items() if key.startswith(METRIC)}
    return Champion(str(version.version), figures)


def links(promoted: Mapping[str, Any]) -> list[str]:
    """Markdown links to a version's page and to its run with the report, where MLflow is a server that has pages."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith("http"):
        return []
    root = address.rpartition("@")[2] if "@" in address else address.partition("://")[2]
    root = f"{address.partition('://')[0]}://{root.rstrip('/')}/#"
    return [
        f"[version {promoted['version']}]({root}/models/{promoted['name']}/versions/{promoted['version']})",
        f"[run and report]({root}/runs/{promoted['run_id']}/artifacts)",
    ]
