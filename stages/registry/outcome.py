"""The outcome of a judged version: as data, as tags of the version, and in words for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from stages.evaluation import gates
from stages.evaluation.gates import Verdict


def outcome(version: ModelVersion, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Describe a judged version for version.json."""
    return {
        "name": version.name,
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        "validation_status": version.tags["validation_status"],
        "refused_because": gates.refusals(verdicts),
        "warned_of": gates.warnings(verdicts),
        "gates": [verdict.as_dict() for verdict in verdicts],
        "release_digest": version.tags["release_digest"],
        "run_id": version.run_id,
    }


def verdict_tags(mode: str, summary: Mapping[str, float | None], verdicts: Sequence[Verdict]) -> dict[str, str | None]:
    """Return the figures, the gates and the outcome as tags of the version."""
    tags: dict[str, str | None] = {
        f"metric.{name}": f"{value:.6g}" for name, value in summary.items() if value is not None
    }
    tags |= {f"gate.{verdict.name}": f"{verdict.word}: {verdict.shown} ({verdict.limit})" for verdict in verdicts}
    return tags | {
        "validation_status": gates.status(mode, verdicts),
        "refused_because": "; ".join(gates.refusals(verdicts)) or None,
        "warned_of": "; ".join(gates.warnings(verdicts)) or None,
    }


def next_steps(promotion: Mapping[str, Any], address: str, report: Path) -> str:
    """Say what happened, and what the release owner can do next.

    Args:
        promotion: the content of version.json.
        address: address of the MLflow store, as a person would type it.
        report: the page to read before a decision.
    """
    name, number = promotion["name"], promotion["version"]
    champion = "champion" in promotion["aliases"]
    lines = [f"{name} version {number}: {', '.join(promotion['aliases'])} ({promotion['validation_status']})"]
    lines += [f"warning: {warning}" for warning in promotion["warned_of"]]
    if promotion["validation_status"] == "refused":
        lines += ["REFUSED by its gates, so not signed off:", *(f"  {why}" for why in promotion["refused_because"])]
        if champion:
            lines += ["It was champion before, and still is. To take it down:"]
            lines += ["  stillhouse rollback --name YOU --reason WHY"]
    elif champion:
        lines += [f"Serve it: MLFLOW_TRACKING_URI={address} \\"]
        lines += [f"  mlflow models serve --env-manager local -m models:/{name}@champion"]
    else:
        lines += [promotion["objection"]] if promotion["objection"] else []
        lines += [f"It waits for a person to sign it off. Read {report}, then"]
        lines += [f"  stillhouse sign-off --version {number} --approve --name YOU --reason WHY"]
        lines += ["or --refuse. Without either it asks, in Prefect's UI or by tags of the version in MLflow's:"]
        lines += [f"  mlflow ui --backend-store-uri {address}"]
    return "\n".join(lines)
