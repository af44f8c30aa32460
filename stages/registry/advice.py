"""What to do next with a version that was just judged, for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def next_steps(promotion: Mapping[str, Any], address: str, report: Path) -> str:
    """What happened, in words, and what the release owner can do next.

    Args:
        promotion: what version.json holds.
        address: of the MLflow store, as one would type it.
        report: what to read before.
    """
    name, number = promotion["name"], promotion["version"]
    champion = "champion" in promotion["aliases"]
    lines = [f"{name} version {number}: {', '.join(promotion['aliases'])} ({promotion['validation_status']})"]
    lines += [f"warning: {one}" for one in promotion["warned_of"]]
    if promotion["validation_status"] == "refused":
        lines += ["REFUSED by its gates, so not signed off:", *(f"  {one}" for one in promotion["refused_because"])]
        if champion:
            lines += ["It was champion before, and still is. To take it down:"]
            lines += ["  python -m flows.release rollback --name YOU --reason WHY"]
    elif champion:
        lines += [f"Serve it: MLFLOW_TRACKING_URI={address} \\"]
        lines += [f"  mlflow models serve --env-manager local -m models:/{name}@champion"]
    else:
        lines += [promotion["objection"]] if promotion["objection"] else []
        lines += [f"It waits for a person to sign it off. Read {report}, then"]
        lines += [f"  python -m flows.release sign-off --version {number} --approve --name YOU --reason WHY"]
        lines += [
            "or --refuse; without a decision it asks for one, in Prefect's UI or by tags of the version in MLflow's:"
        ]
        lines += [f"  mlflow ui --backend-store-uri {address}"]
    return "\n".join(lines)
