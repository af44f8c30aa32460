"""What the stages of a finished build took, as their MLflow runs say; data/lineage points at them."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """A finished stage: seconds of its run, and the figures it recorded."""

    seconds: float
    metrics: dict[str, float]


def measured_stages(lineage: Path, tracking_uri: str) -> dict[str, Measured]:
    """Every stage that left a lineage file.

    Raises:
        FileNotFoundError: there is none.
    """
    from mlflow import MlflowClient

    files = sorted(lineage.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{lineage} holds no finished stage to check the plan against; run dvc repro")
    client = MlflowClient(tracking_uri=tracking_uri)
    stages = {}
    for file in files:
        record = json.loads(file.read_text(encoding="utf-8"))
        run = client.get_run(record["run_id"])
        milliseconds = run.info.end_time - run.info.start_time
        stages[str(record["stage"])] = Measured(milliseconds / 1000, dict(run.data.metrics))
    return stages
