"""Which failures are tried again, by what the processes of a stage reported and by the exit code of its command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import pytest
import requests
import torch

from flows.failure_causes import Fault, Report, classify, read_reports
from stages.tracking.failure_report import described


class TrackingError(RuntimeError):
    """Named as the exception of a stage that could not be recorded."""


def report(error: BaseException, cause: BaseException | None = None) -> Report:
    error.__cause__ = cause
    return described(error)


def lost_peer(message: str = "Connection closed by peer") -> Report:
    """What a process reports that lost another one, in torch's communication."""
    return {**described(RuntimeError(message)), "raised_in": "torch.distributed.distributed_c10d"}  # type: ignore[dict-item]


NOT_A_NUMBER = report(ValueError("loss is NaN at step 3"))
OUT_OF_MEMORY = report(torch.OutOfMemoryError("CUDA out of memory"))
REFUSED = report(requests.exceptions.ConnectionError("refused"))
LAUNCHER = report(subprocess.CalledProcessError(1, "accelerate"))
KILLED: Report = None


@pytest.mark.parametrize(
    ("fault", "reports", "exit_code"),
    [
        (Fault.LOST, [], -9),
        (Fault.LOST, [], 137),
        (Fault.FINAL, [], 1),
        (Fault.FINAL, [], 255),
        (Fault.FINAL, [], None),
        (Fault.FINAL, [NOT_A_NUMBER], 1),
        (Fault.FINAL, [report(SystemExit("error: params.yaml: seed: missing"))], 1),
        (Fault.FINAL, [report(OSError(28, "No space left on device"))], 1),
        (Fault.MEMORY, [OUT_OF_MEMORY], 1),
        (Fault.NETWORK, [REFUSED], 1),
        (Fault.NETWORK, [report(ConnectionResetError())], 1),
        # The exception that ended the stage decides, not the one that it handled.
        (Fault.FINAL, [report(ValueError("no such data set"), ConnectionError("refused"))], 1),
        (Fault.NETWORK, [report(TrackingError("not recorded"), requests.exceptions.ConnectTimeout())], 1),
        (Fault.FINAL, [report(TrackingError("not recorded"), ValueError("a metric is no number"))], 1),
        (Fault.BUSY, [report(RuntimeError("another process trains"), filelock.Timeout("writer.lock"))], 1),
        # Of several processes, the launcher only says that one failed.
        (Fault.MEMORY, [OUT_OF_MEMORY, KILLED, LAUNCHER], 1),
        (Fault.NETWORK, [REFUSED, LAUNCHER], 1),
        (Fault.LOST, [KILLED, LAUNCHER], 1),
        (Fault.FINAL, [NOT_A_NUMBER, LAUNCHER], 1),
        # A process that lost another one does not say why.
        (Fault.FINAL, [NOT_A_NUMBER, lost_peer()], 1),
        (Fault.FINAL, [NOT_A_NUMBER, KILLED], 1),
        (Fault.NETWORK, [REFUSED, lost_peer()], 1),
        (Fault.MEMORY, [lost_peer(), OUT_OF_MEMORY], 1),
        (Fault.LOST, [lost_peer(), KILLED], 1),
        (Fault.NETWORK, [lost_peer()], 1),
    ],
)
def test_a_failure_is_told_by_the_reports(fault: Fault, reports: list[Report], exit_code: int | None) -> None:
    assert classify(reports, exit_code) is fault


SCRIPT = """
import os, signal, sys
from stages.tracking.failure_report import reported_failure
with reported_failure():
    {body}
"""


def reports_of(folder: Path, body: str, **environment: str) -> list[Any]:
    """Reports of a process with such a body."""
    subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        env={**os.environ, "STILLHOUSE_FAILURES": str(folder), **environment},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return read_reports(folder)


def test_a_process_reports_its_exception_and_nothing_where_all_is_well(tmp_path: Path) -> None:
    assert reports_of(tmp_path, "pass") == []
    (found,) = reports_of(tmp_path, "open('missing')")
    assert found["chain"][0][0] == "builtins.FileNotFoundError"
    assert found["raised_in"] == "__main__"


def test_a_rank_that_a_signal_ends_leaves_an_empty_report(tmp_path: Path) -> None:
    assert reports_of(tmp_path, f"os.kill(os.getpid(), {signal.SIGKILL:d})", RANK="1") == [None]


def test_a_report_is_json_of_class_names_alone(tmp_path: Path) -> None:
    assert "secret" not in json.dumps(described(RuntimeError("a secret")))
