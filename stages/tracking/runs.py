"""The record of a stage in MLflow: one parent run a build, one nested run a stage, one lineage file a stage.

MLflow takes 2.5 s of import in a stage that already holds torch, and 10 to 50 ms a write on SQLite. So a
stage never imports it: `stage_run` starts `stages.tracking.recorder`, which does so on another core while the
stage loads its own libraries, and which then receives metrics as JSON lines (0.06 ms a call). It also
outlives a stage that is killed, and so marks its run as killed instead of leaving it running for ever.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from stages.tracking.main_process import first

LINEAGE = Path("data/lineage")


class TrackingError(RuntimeError):
    """MLflow refused or lost what a stage had to record."""


class StageRun:
    """One stage's run in MLflow, seen from the stage. Made by `stage_run`, not by hand."""

    def __init__(self, opening: Mapping[str, Any]) -> None:
        self.stage = str(opening["stage"])
        self._opened: dict[str, Any] | None = None
        self._failure: TrackingError | None = None
        package_root = str(Path(__file__).resolve().parents[2])
        search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        self._recorder = subprocess.Popen(
            [sys.executable, "-m", "stages.tracking.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": search_path},
        )
        self._send(opening)

    @property
    def run_id(self) -> str:
        """Id of this stage's MLflow run; waits for MLflow to have opened it."""
        return str(self._opening_reply()["run_id"])

    @property
    def parent_run_id(self) -> str:
        """Id of the build's MLflow run."""
        return str(self._opening_reply()["parent_run_id"])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures by name. Returns at once: the recorder writes them in batches.

        Raises:
            TrackingError: when an earlier write failed, so that a long training does not go on unrecorded.
        """
        values = {name: float(value) for name, value in metrics.items()}
        now = time.time_ns() // 1_000_000  # milliseconds
        self._send({"kind": "metrics", "time": now, "step": step or 0, "values": values})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's content, to the run's artifacts; it may be deleted when this returns."""
        if not path.exists():
            raise FileNotFoundError(f"{self.stage}: no artifact to log at {path}")
        self._opening_reply()
        self._send({"kind": "artifact", "path": str(path.resolve()), "folder": folder})
        self._receive()

    def finish(self) -> dict[str, Any]:
        """End the run as finished and give its lineage."""
        self._opening_reply()
        self._send({"kind": "end", "status": "FINISHED"})
        lineage: dict[str, Any] = self._receive()["lineage"]
        self._close()
        return lineage

    def abandon(self, error: BaseException) -> None:
        """End the run as failed; a recorder that is itself broken must not hide the stage's error."""
        if error is self._failure:
            return
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        try:
            self._opening_reply()
            reason = redacted(f"{type(error).__name__}: {error}")
            self._send({"kind": "end", "status": status, "reason": reason})
            self._receive()
            self._close()
        except TrackingError as failure:
            error.add_note(f"and its MLflow run could not be ended: {failure}")

    def _send(self, message: Mapping[str, Any]) -> None:
        pipe = self._recorder.stdin
        assert pipe is not None
        if self._failure:
            raise self._failure
        try:
            pipe.write(json.dumps(message, default=str) + "\n")
            pipe.flush()
        except BrokenPipeError:
            while True:  # past the replies to earlier messages, to the error that ended the recorder
                self._receive()

    def _receive(self) -> dict[str, Any]:
        pipe = self._recorder.stdout
        assert pipe is not None
        line = pipe.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": "the recorder process died"}
        if self._opened is None and "run_id" in reply:
            self._opened = reply
        if "error" in reply:
            self._failure = TrackingError(f"{self.stage}: MLflow could not record it: {reply['error']}")
            self._close()
            raise self._failure
        return reply

    def _close(self) -> None:
        for pipe in (self._recorder.stdin, self._recorder.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._recorder.wait()

    def _opening_reply(self) -> dict[str, Any]:
        return self._opened or self._receive()


class SilentRun:
    """A stage's run seen from the other processes of the stage, which record nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Nothing: the first process records."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Nothing: the first process records."""


@contextmanager
def stage_run(stage: str, params: Mapping[str, Any], inputs: Sequence[Path]) -> Iterator[StageRun | SilentRun]:
    """Record the body of a `with` as one stage's MLflow run; write data/lineage/<stage>.json if it succeeds.

    Args:
        stage: name in dvc.yaml, e.g. `distill` or `adapt@retrieval`.
        params: the stage's section of params.yaml, with the recipe's `name` (the experiment) and `seed`.
        inputs: files and folders that the stage reads; their digests go to the lineage.

    Raises:
        FileNotFoundError: when an input is missing.
        TrackingError: when MLflow could not be written.
    """
    if missing := [str(path) for path in inputs if not path.exists()]:
        raise FileNotFoundError(f"{stage}: missing input {', '.join(missing)}; run `dvc repro {stage}`")
    if not first():
        yield SilentRun()
        return
    names = [str(path) for path in inputs]
    run = StageRun({"stage": stage, "params": dict(params), "inputs": names, "build": build_identity()})
    try:
        yield run
    except BaseException as error:
        run.abandon(error)
        raise
    write_lineage(stage, run.finish())


def write_lineage(stage: str, lineage: Mapping[str, Any]) -> None:
    """Write a stage's lineage beside its place and rename it, so that no half-written one is ever read."""
    LINEAGE.mkdir(parents=True, exist_ok=True)
    partial = LINEAGE / f".{stage}.json.partial"
    partial.write_text(json.dumps(lineage, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(LINEAGE / f"{stage}.json")


def build_identity() -> str:
    """What a build's stages have in common: STILLHOUSE_BUILD, else the `dvc` above, else this process."""
    if given := os.environ.get("STILLHOUSE_BUILD"):
        return re.sub(r"[^\w.:-]", "-", given)
    import psutil

    here = psutil.Process()
    for process in here.parents():
        try:
            command = process.cmdline()
        except psutil.Error:  # another user's process, or one that has just ended
            continue
        if "dvc" in {Path(word).name for word in command[:2]} or command[1:3] == ["-m", "dvc"]:
            return f"dvc-{process.pid}-{process.create_time():.0f}"
    return f"process-{here.pid}-{here.create_time():.0f}"


def tracking_uri() -> str:
    """Address of the MLflow store: MLFLOW_TRACKING_URI, else mlflow.db in the working folder.

    A user and password inside an http address move to the variables that MLflow reads them from, so that no
    message, tag or log line can show them.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        credentials, _, host = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
        uri = urlunsplit(parts._replace(netloc=host))
        os.environ["MLFLOW_TRACKING_URI"] = uri
    return uri


def redacted(text: str) -> str:
    """The text with the user and password of every address in it replaced by stars."""
    return re.sub(r"://[^/\s@]+@", "://***@", text)


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the working folder and whether its files differ from it; None, None without git or commit.

    dvc.lock does not count: every build rewrites it, stage by stage.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changes)


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files, as hexadecimal.

    Left out: `.gitignore`, which DVC writes beside its outputs, and Python's bytecode.
    """
    if path.is_file():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    total = hashlib.sha256()
    files = (file for file in path.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file.relative_to(path).as_posix()):
        if file.name != ".gitignore" and "__pycache__" not in file.parts:
            total.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
    return total.hexdigest()
