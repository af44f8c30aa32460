"""One stage of a rebuild as a Prefect task: wait for devices, run through DVC, run again where that helps."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled, State

from flows.devices import CORE, cores, held_devices
from flows.failure_causes import BUSY_PAUSE, PAUSES, Fault, classify, read_reports
from flows.pipeline import DVC, Stage
from flows.process_group import STOP, Stopped, guarded, stop_command
from stages.recipe.paths import FAILURES, FAILURES_VARIABLE, MACHINES_VARIABLE, REFUSED
from stages.recipe.process_environment import dvc_environment
from stages.recipe.redaction import redacted

LAST_LINES = 20  # of a failed stage's log, which the message shows
CPU_SLOT = "cpu-heavy"
GPU_SLOT = "gpu"
_COMMAND_EXIT = re.compile(r"failed to run: .* exited with (-?\d+)")
# DVC's advice to a person at a terminal, and its warnings about a remote that nobody has set up.
_NOISE = (
    "Generating lock file",
    "Updating lock file",
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage",
    "Use `dvc push`",
    "WARNING: Failed to pull run cache: config file error: no remote",
    "dvc remote add -d",
)


class StageFailed(RuntimeError):
    """A stage failed, and another attempt did not or would not help."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    `outcome` is cached or run from `run_stage`; flows/schedule.py sets failed, stopped and not reached. The stage held
    `devices` for `seconds`.
    """

    stage: str
    outcome: str
    seconds: float = 0.0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One run of a stage: whether the stage ran, DVC's exit code, and the last lines of the log."""

    ran: bool
    dvc_exit_code: int
    tail: tuple[str, ...]

    @property
    def command_exit_code(self) -> int | None:
        """Exit code of the stage's command as DVC's log has it, the only place where DVC tells the code."""
        found = _COMMAND_EXIT.findall("\n".join(self.tail))
        return int(found[-1]) if found else None


@dataclass(frozen=True)
class RebuildSettings:
    """Settings that a rebuild passes to all its stages.

    `forced` stages run although they are up to date; `limit` is the longest attempt in seconds (None: no limit).
    """

    folder: Path
    build: str
    recipe: Mapping[str, Any]
    forced: frozenset[str]
    devices: tuple[str, ...]
    locks: Path
    limit: float | None
    has_remote: bool


@task(name="stage", cache_policy=NO_CACHE)
def run_stage(stage: Stage, settings: RebuildSettings, upstream: Sequence[StageResult]) -> StageResult | State[Any]:
    """Bring one stage up to date through DVC, with its output as this task's log.

    Args:
        upstream: results of the stages whose outputs it reads.

    Returns:
        The stage's result, or the state Cancelled where the rebuild had to end.

    Raises:
        StageFailed: the stage failed, and the message has the last lines of its log; or it took longer than it may.
    """
    logger = get_run_logger()
    rerun = [result.stage for result in upstream if result.outcome == "run"]
    if not (stage.reasons or rerun or stage.name in settings.forced):
        logger.info("up to date")
        return StageResult(stage.name, "cached")
    logger.info("why: %s", ", ".join([*stage.reasons, *(f"{name} ran" for name in rerun)]) or "forced")
    devices, number = usable_devices(stage, settings)

    def waiting() -> None:
        logger.info("waiting for %d of the devices %s", number, ", ".join(devices))

    try:
        with held_devices(devices, number, settings.locks, waiting) as held:
            started = time.monotonic()
            ran = run_with_retries(stage, settings, held)
    except Stopped as stopped:
        return Cancelled(message=str(stopped))
    return StageResult(stage.name, "run" if ran else "cached", time.monotonic() - started, held)


def slot_of(stage: Stage, settings: RebuildSettings) -> str | None:
    """Name of the Prefect limit that a stage counts for; without GPUs, a GPU stage counts as a CPU stage."""
    return CPU_SLOT if stage.needs.slot == GPU_SLOT and not settings.devices else stage.needs.slot


def usable_devices(stage: Stage, settings: RebuildSettings) -> tuple[tuple[str, ...], int]:
    """List the devices that a stage may use and count those that it uses: GPUs or cores; a light stage uses none.

    Several machines share the processes of a training stage evenly; every machine uses the devices with the same
    numbers as those reserved here. Ray places the processes of the embed stage, at most on all devices.
    """
    slot = slot_of(stage, settings)
    if slot is None:
        return (), 0
    processes, machines = _number(settings.recipe, stage.needs.devices), int(os.environ.get(MACHINES_VARIABLE, "1"))
    if stage.needs.devices == "engine.processes":
        processes = -(-processes // machines)
    elif machines > 1 and settings.devices:
        processes = min(processes, len(settings.devices))
    if slot == GPU_SLOT:
        return settings.devices, processes
    here = cores()
    return here, min(len(here), processes * _number(settings.recipe, "engine.threads"))


def _number(recipe: Mapping[str, Any], key: str | None) -> int:
    """Read a number at a dotted key of the recipe; 1 where the key holds none."""
    value: Any = recipe
    for part in (key or "").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) else 1


def run_with_retries(stage: Stage, settings: RebuildSettings, devices: Sequence[str]) -> bool:
    """Run a stage, and run it again while its fault may pass.

    Returns:
        Whether the stage ran; false where DVC found it up to date.

    Raises:
        StageFailed: the fault does not pass.
        Stopped: the rebuild has to end.
    """
    logger = get_run_logger()
    pauses = {fault: list(seconds) for fault, seconds in PAUSES.items()}
    waited = 0.0
    while True:
        attempt = run_once(stage, settings, devices)
        if not attempt.dvc_exit_code:
            return attempt.ran
        fault = classify(read_reports(failures_folder(stage, settings)), attempt.command_exit_code)
        if fault is Fault.BUSY and (settings.limit is None or waited < settings.limit):
            pause = BUSY_PAUSE
            waited += pause
        elif pauses.get(fault):
            pause = pauses[fault].pop(0)
        else:
            raise StageFailed(failure_message(stage.name, attempt, settings.folder), fault)
        logger.warning("temporary failure (%s): trying again in %.0f s", fault.value, pause)
        if STOP.wait(pause):
            raise Stopped(f"the rebuild was told to end before another try of {stage.name}")


def run_once(stage: Stage, settings: RebuildSettings, devices: Sequence[str]) -> Attempt:
    """Run a stage once through DVC, with its output in this task's log.

    Raises:
        StageFailed: the stage took longer than it may.
        Stopped: the rebuild has to end.
    """
    logger = get_run_logger()
    options = ["--force"] if stage.name in settings.forced else []
    # An output that is not here comes from the remote when it is needed; without a remote `--pull` fails for it.
    options += ["--pull", "--allow-missing"] if settings.has_remote else []
    command = [*DVC, "repro", "--single-item", *options, stage.name]
    ran, tail, expired = False, deque[str](maxlen=LAST_LINES), threading.Event()
    with guarded(command, settings.folder, stage_environment(stage, settings, devices)) as process:

        def expire() -> None:
            expired.set()
            stop_command(process)

        timer = threading.Timer(settings.limit or threading.TIMEOUT_MAX, expire)
        timer.daemon = True
        timer.start()
        for line in lines_of(process):
            logger.info("%s", line)
            tail.append(line)
            ran = ran or line == f"Running stage '{stage.name}':"
        code = process.wait()
        timer.cancel()
    if STOP.is_set():
        raise Stopped(f"{stage.name} was stopped")
    if expired.is_set():
        assert settings.limit is not None
        message = f"stage '{stage.name}' took longer than {settings.limit / 3600:g} h (stage_hours) and was stopped"
        raise StageFailed(f"{message}; training resumes from its checkpoint in the next rebuild", Fault.FINAL)
    return Attempt(ran, code, tuple(tail))


def failure_message(stage: str, attempt: Attempt, folder: Path) -> str:
    """Tell a person who sees only that the flow failed which stage it was, where its files are and how its log ends."""
    lines = [
        f"stage '{stage}' failed with exit code {attempt.dvc_exit_code}. The checkout is untouched; "
        f"this rebuild's files: {folder}"
    ]
    if (folder / REFUSED).is_dir():
        lines.append(f"Refused rows, if this stage refused any: {folder / REFUSED}/")
    return "\n".join([*lines, f"Last lines of its log (all of them are in the task '{stage}'):", *attempt.tail])


def failures_folder(stage: Stage, settings: RebuildSettings) -> Path:
    """Folder in which the processes of a stage report how they failed."""
    return settings.folder / FAILURES / stage.name


def stage_environment(stage: Stage, settings: RebuildSettings, devices: Sequence[str]) -> dict[str, str]:
    """Environment of an attempt: this interpreter first in the path, the devices, an empty folder for reports."""
    reports = failures_folder(stage, settings).resolve()
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {"PATH": path, "STILLHOUSE_BUILD": settings.build, FAILURES_VARIABLE: str(reports), "PYTHONUNBUFFERED": "1"}
    if gpus := [device for device in devices if not device.startswith(CORE)]:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return {"TQDM_MININTERVAL": "10", **dvc_environment(), **own}  # progress bars that flood no log


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the lines of the command's output as they come, without empty lines, DVC's advice and secrets."""
    assert process.stdout is not None
    for line in process.stdout:
        text = line.rstrip()
        if text and not text.lstrip().startswith(_NOISE):
            yield redacted(text)
