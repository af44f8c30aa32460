"""The record of a stage in MLflow: one parent run per build, one nested run per stage, one lineage file per stage.

Importing MLflow takes about 1.5 seconds in a stage that holds torch, and a write to SQLite 10 to 50 ms. One thread does
both while the stage computes. A stage that is killed leaves its run as `RUNNING`; the next stage of the same experiment
marks it as killed.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from stages.recipe.redaction import redacted
from stages.tracking.lineage import write_lineage
from stages.tracking.main_process import is_main_process

FLUSH_SECONDS = 2.0


class TrackingError(RuntimeError):
    """MLflow refused or lost what a stage had to record."""


class StageRun:
    """One stage's run in MLflow. Made by `stage_run`, not by hand."""

    def __init__(self, stage: str, params: Mapping[str, Any], inputs: Sequence[Path]) -> None:
        self.stage = stage
        self._metrics: SimpleQueue[tuple[str, float, int, int]] = SimpleQueue()  # name, value, milliseconds, step
        self._flushed = time.monotonic()
        self._failure: TrackingError | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._recorder = self._worker.submit(self._guarded, _open_recorder, stage, params, inputs)

    @property
    def run_id(self) -> str:
        """Id of this stage's MLflow run; waits until MLflow has opened it."""
        return str(self._recorder.result().run_id)

    @property
    def parent_run_id(self) -> str:
        """Id of the build's MLflow run."""
        return str(self._recorder.result().parent_run_id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures by name. Returns at once: a thread writes them in batches.

        Raises:
            TrackingError: an earlier write failed. So a long training does not go on unrecorded.
        """
        if self._failure:
            raise self._failure
        now = time.time_ns() // 1_000_000
        for name, value in metrics.items():
            self._metrics.put((name, float(value), now, step or 0))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._worker.submit(self._guarded, self._flush)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's content, to the run's artifacts; it may be deleted when this returns."""
        if not path.exists():
            raise FileNotFoundError(f"{self.stage}: no artifact to log at {path}")
        recorder = self._recorder.result()
        self._worker.submit(self._guarded, recorder.log_artifact, path, folder).result()

    def end(self, status: str, reason: str | None = None) -> dict[str, Any]:
        """Write what waits, end the run and return the stage's lineage."""
        recorder = self._recorder.result()
        self._worker.submit(self._guarded, self._flush).result()
        lineage: dict[str, Any] = self._worker.submit(self._guarded, recorder.end, status, reason).result()
        return lineage

    def abandon(self, error: BaseException) -> None:
        """End the run as failed, or as killed by a keyboard's interrupt; a failure to do so hides no error."""
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        try:
            recorder = self._recorder.result()
            if self._failure is None:
                self._worker.submit(self._guarded, self._flush)
            reason = redacted(f"{type(error).__name__}: {error}")
            self._worker.submit(recorder.end, status, reason).result()
        except Exception as failure:
            if error is not self._failure:
                error.add_note(f"and its MLflow run could not be ended: {redacted(str(failure))}")

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown()

    def _guarded(self, write: Callable[..., Any], *arguments: Any) -> Any:
        """Run one write in the thread; after a failure none is tried again."""
        if self._failure:
            raise self._failure
        try:
            return write(*arguments)
        except Exception as error:
            reason = redacted(f"{type(error).__name__}: {error}")
            self._failure = TrackingError(f"{self.stage}: MLflow could not record it: {reason}")
            raise self._failure from error

    def _flush(self) -> None:
        metrics = [self._metrics.get() for _ in range(self._metrics.qsize())]
        self._recorder.result().log_metrics(metrics)


class SilentRun:
    """The run as the other processes of a stage see it, which record nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing: the main process records."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Do nothing: the main process records."""


@contextmanager
def stage_run(stage: str, params: Mapping[str, Any], inputs: Sequence[Path]) -> Iterator[StageRun | SilentRun]:
    """Record the body of a `with` as one stage's MLflow run; write data/lineage/<stage>.json if it succeeds.

    Args:
        stage: name in dvc.yaml, such as `distill` or `adapt@retrieval`.
        params: the stage's section of params.yaml, with the recipe's `name` (the experiment) and `seed`.
        inputs: files and folders that the stage reads; their digests go to the lineage.

    Raises:
        FileNotFoundError: an input is missing.
        TrackingError: MLflow could not be written.
    """
    if missing := [str(path) for path in inputs if not path.exists()]:
        raise FileNotFoundError(f"{stage}: missing input {', '.join(missing)}; run `dvc repro {stage}`")
    if not is_main_process():
        yield SilentRun()
        return
    run = StageRun(stage, params, inputs)
    try:
        yield run
        lineage = run.end("FINISHED")
    except BaseException as error:
        run.abandon(error)
        raise
    finally:
        run.close()
    write_lineage(stage, lineage)


def build_identity() -> str:
    """Return what the stages of a build have in common: STILLHOUSE_BUILD, else the `dvc` above, else this process."""
    if given := os.environ.get("STILLHOUSE_BUILD"):
        return re.sub(r"[^\w.:-]", "-", given)
    here = psutil.Process()
    for process in here.parents():
        try:
            command = process.cmdline()
        except psutil.Error:  # another user's process, or one that has just ended
            continue
        if "dvc" in {Path(word).name for word in command[:2]} or command[1:3] == ["-m", "dvc"]:
            return f"dvc-{process.pid}-{process.create_time():.0f}"
    return f"process-{here.pid}-{here.create_time():.0f}"


def _open_recorder(stage: str, params: Mapping[str, Any], inputs: Sequence[Path]) -> Any:
    from stages.tracking.recorder import Recorder  # MLflow: imported here, in the thread

    return Recorder(stage, params, inputs, build_identity())
