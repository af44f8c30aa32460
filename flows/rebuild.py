"""Rebuild the model: the stages of dvc.yaml in order, each as a Prefect task, in the working folder.

DVC decides which stage is stale and runs it in a process of its own; this flow says when, shows each stage
with its log, and puts the last good outputs back where a stage fails. Stages run one after another.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

from stages import params

PROMOTED = Path("data/promoted/version.json")
REFUSED = Path(".stillhouse/refused")
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
LAST_LINES = 20
STOP_SECONDS = 10.0
EPHEMERAL_SERVER_SECONDS = 120  # Prefect's own server took 16 to 18 s to start, and its limit is 20


class StageFailed(RuntimeError):
    """A stage ended with an error; its last good outputs are back in place."""


@dataclass(frozen=True)
class StageResult:
    """One stage of this rebuild: `cached`, `run` or `failed`, and its seconds."""

    stage: str
    outcome: str
    seconds: float


@flow(name="rebuild", log_prints=True)
def rebuild(force: bool = False) -> list[StageResult]:
    """Bring every output up to date, and publish a page with what was done and how the gates judged it.

    Args:
        force: run every stage, also those that DVC finds up to date.

    Raises:
        StageFailed: when a stage fails; the stages after it do not run.
    """
    check_recipe()
    results: list[StageResult] = []
    for stage in list_stages():
        try:
            named = run_stage.with_options(task_run_name=stage)
            results.append(named(stage, force, build=f"prefect-{flow_run.id}"))
        except StageFailed:
            publish([*results, StageResult(stage, "failed", 0.0)])
            raise
    publish(results)
    return results


@task(name="stage", cache_policy=NO_CACHE)
def run_stage(stage: str, force: bool, build: str) -> StageResult:
    """Run one stage through DVC, with its output as this task's log.

    Args:
        stage: name in dvc.yaml.
        force: run it also when it is up to date.
        build: what the stages of this rebuild have in common in MLflow.

    Raises:
        StageFailed: with the last lines of the log; the last good outputs are put back first.
    """
    logger = get_run_logger()
    command = [*DVC, "repro", "--single-item", stage, *(["--force"] if force else [])]
    started, ran, tail = time.monotonic(), False, deque[str](maxlen=LAST_LINES)
    with process_group(command, stage_environment(build)) as process:
        for line in lines_of(process):
            logger.info(line)
            tail.append(line)
            ran = ran or line == f"Running stage '{stage}':"
    if process.returncode:
        raise StageFailed(failure_message(stage, process.returncode, tail, restore(stage)))
    return StageResult(stage, "run" if ran else "cached", time.monotonic() - started)


def check_recipe() -> None:
    """Refuse a wrong params.yaml before DVC deletes any output."""
    params.read()


def list_stages() -> list[str]:
    """Names of the stages in the order of dvc.yaml, which is the order in which they can run."""
    command = [*DVC, "stage", "list", "--name-only"]
    listing = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return listing.stdout.split()


def restore(stage: str) -> str:
    """Put back a failed stage's last good outputs, which DVC had removed; say whether there were any."""
    checkout = subprocess.run(
        [*DVC, "checkout", "--force", stage],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    get_run_logger().info(checkout.stdout.strip())
    if checkout.returncode:
        return "There were no earlier outputs of this stage to put back."
    return "Its last good outputs are back in place."


def failure_message(stage: str, code: int, tail: Sequence[str], restored: str) -> str:
    """What a person needs who sees only that the flow failed."""
    lines = [f"stage '{stage}' failed with exit code {code}. {restored}"]
    if REFUSED.is_dir():
        lines.append(f"Refused rows, if this stage refused any, are in {REFUSED}/.")
    return "\n".join([*lines, f"Last lines of its log (all of them are in the task '{stage}'):", *tail])


def stage_environment(build: str) -> dict[str, str]:
    """Environment of a stage: this interpreter first in the path, progress bars that do not flood a log."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {"PATH": path, "STILLHOUSE_BUILD": build, "PYTHONUNBUFFERED": "1"}
    return {"TQDM_MININTERVAL": "10", **os.environ, **own}


@contextmanager
def process_group(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own; none of it is left when the block ends, also by a cancel."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
        process.wait()
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[str]) -> None:
    """End the group politely, then for certain; also what remains of one that has ended by itself."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and group_alive(process):
            time.sleep(0.05)
    process.wait()


def group_alive(process: subprocess.Popen[str]) -> bool:
    """Whether any process of the group is left; the first one is reaped on the way."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """The command's output as it comes, without empty lines."""
    assert process.stdout is not None
    for line in process.stdout:
        if text := line.rstrip():
            yield text


def publish(results: Sequence[StageResult]) -> None:
    """Show the rebuild's page in Prefect's UI."""
    create_markdown_artifact(page(results), key="rebuild", description="Stages and gates of this rebuild")


def page(results: Sequence[StageResult]) -> str:
    """The rebuild in Markdown: its stages, then, where none failed, the gates of the promoted version."""
    lines = ["## Stages", "", "| stage | outcome | seconds |", "| --- | --- | ---: |"]
    lines += [f"| {one.stage} | {one.outcome} | {one.seconds:.1f} |" for one in results]
    if PROMOTED.is_file() and all(one.outcome != "failed" for one in results):
        version = json.loads(PROMOTED.read_text(encoding="utf-8"))
        title = f"## {version['name']} version {version['version']}: {version['validation_status']}"
        lines += ["", f"{title} ({', '.join(version['aliases'])})", ""]
        lines += ["| gate | figure | limit | verdict |", "| --- | ---: | --- | --- |"]
        for gate in version["gates"]:
            lines.append(f"| {gate['metric']} | {gate['figure']:.4f} | {gate['limit']} | {gate['verdict']} |")
    return "\n".join(lines)


def main() -> None:
    """Rebuild once, on the Prefect server of PREFECT_API_URL or else on one that ends with this run."""
    parser = argparse.ArgumentParser(prog="python -m flows.rebuild", description=main.__doc__)
    parser.add_argument("--force", action="store_true", help="run also the stages that are up to date")
    arguments = parser.parse_args()
    with temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: EPHEMERAL_SERVER_SECONDS}):
        try:
            rebuild(force=arguments.force)
        except StageFailed as failure:  # Prefect has logged the traceback already
            sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()
