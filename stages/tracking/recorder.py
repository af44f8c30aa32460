"""Writes the record of a stage into MLflow. Importing MLflow takes long, so `runs` imports this module in a thread."""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from stages.recipe.paths import STATE
from stages.tracking.address import tracking_uri
from stages.tracking.digests import digest
from stages.tracking.git import git_state
from stages.tracking.lineage import read_lineages

BUILD, PARENT, PROCESS, STAGE = "stillhouse.build", "mlflow.parentRunId", "stillhouse.process", "stage"
START_TOLERANCE = 60.0  # seconds by which a process's start may seem to move when the clock is set


class Recorder:
    """One stage's MLflow run and its parent."""

    def __init__(self, stage: str, params: Mapping[str, Any], inputs: Sequence[Path], build: str) -> None:
        self._stage, self._inputs, self._experiment = stage, inputs, str(params["name"])
        params = dict(json.loads(json.dumps(params, default=str)))
        self._git_sha, dirty = git_state()
        self._client = connect()
        tags = {"recipe": self._experiment, "git_sha": self._git_sha, "git_dirty": dirty}
        with store_lock():
            experiment_id = find_or_create_experiment(self._client, self._experiment)
            sweep(self._client, experiment_id)
            self.parent_run_id = find_or_create_parent(self._client, experiment_id, build, tags)
            tags |= {STAGE: stage, PARENT: self.parent_run_id, PROCESS: process_tag()}
            tags |= {"mlflow.source.name": f"stages.{stage}", "mlflow.source.git.commit": self._git_sha}
            run = self._client.create_run(experiment_id, tags=as_tags(tags), run_name=stage)
            self.run_id: str = run.info.run_id
            self._client.log_batch(self.run_id, params=[Param(*one) for one in flattened(params).items()])
            # A build that runs two stages again still consists of all: its parent names the runs of the others too.
            lineages = {lineage_tag(one["stage"]): one["run_id"] for one in read_lineages()}
            self._client.log_batch(self.parent_run_id, tags=[RunTag(*one) for one in lineages.items()])
        self._client.log_dict(self.run_id, params, "params.json")  # whole, where a value above was cut

    def log_metrics(self, metrics: Sequence[tuple[str, float, int, int]]) -> None:
        """Write (name, value, milliseconds, step) of each figure."""
        with store_lock():
            self._client.log_batch(self.run_id, metrics=[Metric(*one) for one in metrics])

    def log_artifact(self, path: Path, folder: str | None) -> None:
        """Copy a file or a folder's content to the artifacts."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(self.run_id, str(path), folder)

    def end(self, status: str, reason: str | None = None) -> dict[str, Any]:
        """End the run, let the parent follow, and return the lineage of the stage."""
        lineage = {
            "stage": self._stage,
            "run_id": self.run_id,
            "parent_run_id": self.parent_run_id,
            "experiment": self._experiment,
            "git_sha": self._git_sha,
            "inputs": {str(path): digest(path) for path in self._inputs if path.exists()},
        }
        self._client.log_dict(self.run_id, lineage, "lineage.json")
        with store_lock():
            if reason:
                self._client.set_tag(self.run_id, "failure", reason[:MAX_PARAM_VAL_LENGTH])
            if status == "FINISHED":
                self._client.set_tag(self.parent_run_id, lineage_tag(self._stage), self.run_id)
            self._client.set_terminated(self.run_id, status)
            settle_parent(self._client, self.parent_run_id)
        return lineage


def connect() -> MlflowClient:
    """Return a client of the configured store. On a new SQLite file it makes the schema: some seconds, once."""
    with store_lock():
        return MlflowClient(tracking_uri=tracking_uri())


def store_lock() -> FileLock:
    """Return the lock that all stages of this machine hold while they write: adapters may start at the same moment."""
    STATE.mkdir(exist_ok=True)
    return FileLock((STATE / "mlflow.lock").resolve())  # a rebuild's is a link, which FileLock would refuse


def find_or_create_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment. Its artifacts go to mlruns/ unless a tracking server decides where."""
    if experiment := client.get_experiment_by_name(name):
        return str(experiment.experiment_id)
    local = None if os.environ.get("MLFLOW_TRACKING_URI") else Path("mlruns").resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=local and f"{local}/{name}"))


def find_or_create_parent(client: MlflowClient, experiment_id: str, build: str, tags: Mapping[str, Any]) -> str:
    """Return the id of the build's run, set to running again where an earlier stage had ended it."""
    condition, order = f"tags.`{BUILD}` = '{build}'", ["attributes.start_time ASC"]
    if found := client.search_runs([experiment_id], condition, max_results=1, order_by=order):
        client.update_run(found[0].info.run_id, status="RUNNING")
        return str(found[0].info.run_id)
    name = time.strftime("build %Y-%m-%d %H:%M:%S")
    run = client.create_run(experiment_id, tags=as_tags({**tags, BUILD: build}), run_name=name)
    return str(run.info.run_id)


def settle_parent(client: MlflowClient, parent_run_id: str) -> None:
    """Give a build's run the status of its stages' latest runs: the build's last stage has the last word."""
    experiment_id = client.get_run(parent_run_id).info.experiment_id
    condition, order = f"tags.`{PARENT}` = '{parent_run_id}'", ["attributes.start_time ASC"]
    runs = client.search_runs([experiment_id], condition, order_by=order)
    latest = {run.data.tags[STAGE]: run.info.status for run in runs}
    client.set_terminated(parent_run_id, build_status(set(latest.values())))


def build_status(stages: set[str]) -> str:
    """Return the status of a build from the statuses of its stages' latest runs."""
    if "RUNNING" in stages:
        return "RUNNING"
    return "FINISHED" if stages == {"FINISHED"} else "FAILED"


def sweep(client: MlflowClient, experiment_id: str) -> None:
    """Mark the runs whose process is gone as killed, and let their builds follow."""
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    killed = [run for run in running if is_gone(run.data.tags.get(PROCESS))]
    for run in killed:
        client.set_tag(run.info.run_id, "failure", "the process of the stage was killed")
        client.set_terminated(run.info.run_id, "KILLED")
    for parent_run_id in {run.data.tags[PARENT] for run in killed}:
        settle_parent(client, parent_run_id)


def process_tag() -> str:
    """Return this machine, process and its start, by which another stage sees whether it still runs."""
    return json.dumps([socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def is_gone(tag: str | None) -> bool:
    """Return whether the process of a `process_tag` ran on this machine and runs no more."""
    host, pid, started = json.loads(tag) if tag else (None, 0, 0.0)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - started) > START_TOLERANCE
    except psutil.NoSuchProcess:
        return True


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as MLflow's tags, which are text; None is left out."""
    return {name: str(value) for name, value in values.items() if value is not None}


def lineage_tag(stage: str) -> str:
    """Return the name of the parent's tag that holds the run of a stage (MLflow takes no `@` in a name)."""
    return f"lineage.{stage.replace('@', '.')}"


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested params under dotted names; lists as JSON; values cut at MLflow's limit."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        flat[name] = text if len(text) <= MAX_PARAM_VAL_LENGTH else text[: MAX_PARAM_VAL_LENGTH - 1] + "…"
    return flat
