"""Model versions in MLflow's registry: found by the release that they hold, described by tags, pointed at by aliases.

Tags that other commands read: `release` (name of its folder), `release_digest`, `served_digest` (of what is served),
`dvc_lock`, `git_sha`, `git_dirty`, `evidence_run_id` and `evidence_digest` (what it was judged by), `judged_against`
(the champion then), `validation_status`.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from stages.recipe.redaction import redacted
from stages.tracking.address import tracking_uri
from stages.tracking.digests import digest

CHAMPION, CHALLENGER = "champion", "challenger"
EVIDENCE = "evidence"  # folder of a run's artifacts
NONE = "none"  # means no champion, in tags and the ledger


def registry() -> MlflowClient:
    """Return a client of the configured store; MLflow's module-level functions use the same store afterwards."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri())
    return MlflowClient()


def find_version(client: MlflowClient, name: str, release_digest: str) -> ModelVersion | None:
    """Return the version that holds this very release, if it is registered already."""
    found = client.search_model_versions(f"name = '{name}' and tags.release_digest = '{release_digest}'")
    return max(found, key=lambda version: int(version.version), default=None)


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    """Return the version that the alias `champion` points at, if any."""
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        # An unknown alias is an invalid parameter to MLflow, an unknown model a missing resource.
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def champion_number(client: MlflowClient, name: str) -> str | None:
    """Return the number of the champion's version, if any."""
    version = champion_of(client, name)
    return None if version is None else str(version.version)


def set_tags(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str], forget: tuple[str, ...]) -> None:
    """Give the version these tags, and remove others whose names begin like one of `forget`."""
    number = str(version.version)
    for name in version.tags:
        if name not in tags and name.startswith(forget):
            client.delete_model_version_tag(version.name, number, name)
    for name, value in tags.items():
        client.set_model_version_tag(version.name, number, name, value)


def served_models(client: MlflowClient, version: ModelVersion) -> Path:
    """Return the folder of the version's models as they are served: `<task>/` in Sentence Transformers format."""
    return _logged_model(client, version) / "artifacts" / "merged"


def champion_files(name: str) -> tuple[str, Path] | None:
    """Return the champion's version and the folder that it is served from, `merged/<task>/` and calibration.json.

    None without a champion. A store on this machine that does not exist yet is not made.

    Raises:
        ValueError: the store or the champion's files cannot be read.
    """
    address = tracking_uri()
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists():
        return None
    try:
        client = registry()
        version = champion_of(client, name)
        return None if version is None else (str(version.version), served_models(client, version).parent)
    except (MlflowException, OSError) as error:
        raise ValueError(
            f"{redacted(address)}: the champion of {name} cannot be read: {redacted(str(error))}"
        ) from error


def served_digest(client: MlflowClient, version: ModelVersion) -> str:
    """Return a digest of what the version is served from: models, limits of quantised vectors, code."""
    folder = _logged_model(client, version)
    parts = [digest(folder / "artifacts"), *(digest(code) for code in sorted(folder.glob("*.py")))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def evidence_of(version: ModelVersion) -> Path | None:
    """Return the folder of what the version was last judged by; None for one from before evidence was kept.

    Raises:
        MlflowException, OSError: the artifacts are gone.
    """
    run_id = version.tags.get("evidence_run_id")
    if run_id is None:
        return None
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=EVIDENCE))


def _logged_model(client: MlflowClient, version: ModelVersion) -> Path:
    uri = client.get_model_version_download_uri(version.name, str(version.version))
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
