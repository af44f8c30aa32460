"""The machine's clock jumps back a day while a stage runs: nothing but the times on record is wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.checkouts import ROOT, environment

# Python imports it before anything else, in the stage and in the process that records it.
JUMPING = """
import os, time
real = time.time
time.time = lambda: real() - 86400 * os.path.exists("jumped")
"""
STAGE = """
from pathlib import Path
from stages.tracking.runs import stage_run
with stage_run("distill", {"name": "tiny"}, []) as run:
    assert run.run_id
    run.log_metrics({"loss": 2.0}, step=1)
    Path("jumped").touch()
    run.log_metrics({"loss": 1.0}, step=2)
"""


def test_a_stage_is_recorded_whole_and_told_as_finished(tmp_path: Path, empty_store: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    jumping = environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    subprocess.run([sys.executable, "-c", STAGE], cwd=tmp_path, env=jumping, check=True)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    lineage = tmp_path / "data/lineage"
    run_id = json.loads((lineage / "distill.json").read_text())["run_id"]
    run = MlflowClient(store).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.end_time < run.info.start_time, "the clock did jump"
    history = MlflowClient(store).get_metric_history(run_id, "loss")
    assert [(one.step, one.value) for one in sorted(history, key=lambda one: one.step)] == [(1, 2.0), (2, 1.0)]
    assert run.data.metrics["loss"] == 1.0
