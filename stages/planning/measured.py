"""Seconds of the stages of a finished build, as their MLflow runs say; data/lineage points at the runs."""

import json
from pathlib import Path

from mlflow import MlflowClient


def measured_seconds(lineage: Path, tracking_uri: str) -> dict[str, float]:
    """Return the seconds of every stage that left a lineage file.

    Raises:
        FileNotFoundError: there is none.
    """
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(lineage.glob("*.json"))]
    if not records:
        raise FileNotFoundError(f"{lineage} holds no finished stage to compare the plan with; run dvc repro")
    client = MlflowClient(tracking_uri=tracking_uri)
    # The record of an absent task is empty.
    runs = {record["stage"]: client.get_run(record["run_id"]).info for record in records if record}
    return {stage: (run.end_time - run.start_time) / 1000 for stage, run in runs.items()}
