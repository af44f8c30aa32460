"""The process that writes a stage's record into MLflow; `tracking.stage_run` starts it and holds its pipes.

In: one JSON object a line on standard input (the opening, metrics, artifacts, the end). Out: one JSON line in
reply to the opening, to each artifact and to the end; `{"error": ...}` when MLflow fails. The end of the
input without an `end` means that the stage was killed.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from filelock import FileLock

from stages.tracking.runs import LINEAGE, digest, git_state, redacted, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

Message = dict[str, Any]

FLUSH_SECONDS = 2.0
# mlflow.utils.validation: MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH, MAX_PARAM_VAL_LENGTH
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
PARAM_LENGTH = 6000


class Recorder:
    """One stage's MLflow run and its parent, seen from MLflow."""

    def __init__(self, opening: Message) -> None:
        self.stage: str = opening["stage"]
        self._inputs: list[str] = opening["inputs"]
        self._git_sha, dirty = git_state()
        self._client = connect()
        self._metrics: list[Message] = []
        self._flushed = time.monotonic()
        self._experiment = str(opening["params"]["name"])
        tags = {"recipe": self._experiment, "git_sha": self._git_sha, "git_dirty": dirty}
        with build_lock():
            experiment_id = find_or_create_experiment(self._client, self._experiment)
            self.parent_run_id = find_or_create_parent(self._client, experiment_id, opening["build"], tags)
        tags |= {"stage": self.stage, "mlflow.parentRunId": self.parent_run_id}
        tags |= {"mlflow.source.name": f"stages.{self.stage}", "mlflow.source.git.commit": self._git_sha}
        run = self._client.create_run(experiment_id, tags=as_tags(tags), run_name=self.stage)
        self.run_id: str = run.info.run_id
        self._log_params(opening["params"])
        self._point_at_cached_stages()

    def handle(self, message: Message) -> Message | None:
        """Act on one message of the stage and give the reply, if it waits for one."""
        if message["kind"] == "metrics":
            self._metrics.append(message)
            self.flush_if_due()
            return None
        if message["kind"] == "artifact":
            log = self._client.log_artifacts if Path(message["path"]).is_dir() else self._client.log_artifact
            log(self.run_id, message["path"], message["folder"])
            return {"artifact": message["path"]}
        return {"lineage": self.end(message["status"], message.get("reason"))}

    def flush_if_due(self) -> None:
        """Write the waiting metrics when the batch is full or old enough."""
        if len(self._metrics) >= METRICS_PER_BATCH or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the waiting metrics now."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, message["time"], message["step"])
            for message in self._metrics
            for name, value in message["values"].items()
        ]
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
        self._metrics.clear()
        self._flushed = time.monotonic()

    def end(self, status: str, reason: str | None = None) -> Message:
        """End the run, let the parent follow, and give the lineage of the stage."""
        self.flush()
        lineage = {
            "stage": self.stage,
            "run_id": self.run_id,
            "parent_run_id": self.parent_run_id,
            "experiment": self._experiment,
            "git_sha": self._git_sha,
            "inputs": {path: digest(Path(path)) for path in self._inputs if Path(path).exists()},
        }
        self._client.log_dict(self.run_id, lineage, "lineage.json")
        if reason:
            self._client.set_tag(self.run_id, "failure", reason[:PARAM_LENGTH])
        self._client.set_terminated(self.run_id, status)
        if status == "FINISHED":
            self._client.set_tag(self.parent_run_id, lineage_tag(self.stage), self.run_id)
        self._end_parent()
        return lineage

    def give_up(self, error: Exception) -> None:
        """End the run as failed after MLflow refused something, if it takes at least that."""
        self._metrics.clear()
        with suppress(Exception):
            self.end("FAILED", redacted(f"not recorded: {error}"))

    def _log_params(self, params: Message) -> None:
        from mlflow.entities import Param

        flat = [Param(key, value) for key, value in flattened(params).items()]
        for start in range(0, len(flat), PARAMS_PER_BATCH):
            self._client.log_batch(self.run_id, params=flat[start : start + PARAMS_PER_BATCH])
        self._client.log_dict(self.run_id, params, "params.json")  # whole, where a value above was cut

    def _point_at_cached_stages(self) -> None:
        """A build that re-runs two stages is still made of all: name the runs of the others on its parent."""
        from mlflow.entities import RunTag

        tags = []
        for path in sorted(LINEAGE.glob("*.json")):
            lineage = json.loads(path.read_text(encoding="utf-8"))
            tags.append(RunTag(lineage_tag(lineage["stage"]), lineage["run_id"]))
        if tags:
            self._client.log_batch(self.parent_run_id, tags=tags)

    def _end_parent(self) -> None:
        """Give the parent the status of its stages' latest runs: the build's last stage has the last word."""
        with build_lock():
            parent = self._client.get_run(self.parent_run_id)
            children = self._client.search_runs(
                [parent.info.experiment_id],
                f"tags.`mlflow.parentRunId` = '{self.parent_run_id}'",
                order_by=["attributes.start_time ASC"],
            )
            latest = {child.data.tags["stage"]: child.info.status for child in children}
            self._client.set_terminated(self.parent_run_id, build_status(set(latest.values())))


def build_status(stages: set[str]) -> str:
    """Status of a build from the statuses of its stages' latest runs."""
    if "RUNNING" in stages:
        return "RUNNING"
    return "FINISHED" if stages == {"FINISHED"} else "FAILED"


def connect() -> "MlflowClient":
    """A client of the configured store. On a new SQLite file it makes the schema: some seconds, once."""
    from mlflow import MlflowClient

    uri = tracking_uri()
    if uri.startswith("sqlite"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (this second of import needs no lock)
    with build_lock():
        return MlflowClient(tracking_uri=uri)


def build_lock() -> FileLock:
    """Held around find-or-create, because adapters may start at the same moment."""
    Path(".stillhouse").mkdir(exist_ok=True)
    return FileLock(Path(".stillhouse/mlflow.lock").resolve())  # a rebuild's is a link, which FileLock would refuse


def find_or_create_experiment(client: "MlflowClient", name: str) -> str:
    """Id of the recipe's experiment. Artifacts go to mlruns/ unless a tracking server decides where."""
    if experiment := client.get_experiment_by_name(name):
        return str(experiment.experiment_id)
    local = None if os.environ.get("MLFLOW_TRACKING_URI") else Path("mlruns").resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=local and f"{local}/{name}"))


def find_or_create_parent(client: "MlflowClient", experiment_id: str, build: str, tags: Mapping[str, Any]) -> str:
    """Id of the build's run, set to running again when an earlier stage had ended it."""
    found = client.search_runs(
        [experiment_id],
        f"tags.`stillhouse.build` = '{build}'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return str(found[0].info.run_id)
    name = time.strftime("build %Y-%m-%d %H:%M:%S")
    run = client.create_run(experiment_id, tags=as_tags({**tags, "stillhouse.build": build}), run_name=name)
    return str(run.info.run_id)


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """MLflow tags are text; what is not known is left out."""
    return {name: str(value) for name, value in values.items() if value is not None}


def lineage_tag(stage: str) -> str:
    """Name of the parent's tag that holds the run of a stage (MLflow takes no `@` in a name)."""
    return f"lineage.{stage.replace('@', '.')}"


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as dotted names; lists as JSON; values cut at MLflow's limit."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        flat[name] = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 1] + "…"
    return flat


def read_messages(lines: TextIO, messages: "queue.Queue[Message | None]") -> None:
    """Move the stage's lines to a queue, so that its pipe never fills while MLflow imports or writes."""
    for line in lines:
        messages.put(json.loads(line))
    messages.put(None)


def record(messages: "queue.Queue[Message | None]", replies: TextIO) -> None:
    """Open the run and follow the stage; where MLflow refuses something, the run ends as failed."""
    opening = messages.get()
    if opening is None:
        return
    recorder = Recorder(opening)
    reply(replies, {"run_id": recorder.run_id, "parent_run_id": recorder.parent_run_id})
    try:
        follow(recorder, messages, replies)
    except Exception as error:
        recorder.give_up(error)
        raise


def follow(recorder: Recorder, messages: "queue.Queue[Message | None]", replies: TextIO) -> None:
    """Act on the stage's messages until its end."""
    while True:
        try:
            message = messages.get(timeout=FLUSH_SECONDS)
        except queue.Empty:
            recorder.flush()
            continue
        if message is None:
            recorder.end("KILLED", "the stage's process ended without a word")
            return
        if answer := recorder.handle(message):
            reply(replies, answer)
        if message["kind"] == "end":
            return


def reply(replies: TextIO, answer: Message) -> None:
    """Send one line to the stage, which may be gone."""
    with suppress(BrokenPipeError):
        print(json.dumps(answer), file=replies, flush=True)


def main() -> None:
    """Record one stage, from standard input."""
    # The group's signals are for the stage: its end closes the pipe, and the run must still be ended then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
    messages: queue.Queue[Message | None] = queue.Queue()
    threading.Thread(target=read_messages, args=(sys.stdin, messages), daemon=True).start()
    try:
        record(messages, replies)
    except Exception as error:
        reply(replies, {"error": redacted(f"{type(error).__name__}: {error}")})
        sys.exit(1)


if __name__ == "__main__":
    main()
