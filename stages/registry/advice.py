"""Advice for the terminal: what happened to a version that was just judged, and what its owner can do next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def next_steps(promotion: Mapping[str, Any], address: str, report: Path) -> str:
    """Say what happened, and what the release owner can do next.

    Args:
        promotion: the content of version.json.
        address: of the MLflow store, as one would type it.
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
