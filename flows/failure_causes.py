"""Why a stage failed, and whether trying again can help.

The processes of a stage report their exceptions in files (stages/tracking/failure_report.py). DVC says which exit code
its command had.

| fault | how it shows | what follows |
| --- | --- | --- |
| BUSY | another process holds the lock of the store or of the checkpoint | again, until the stage's limit |
| LOST | a signal ended a process: a lost worker, no memory | again; training resumes from its checkpoint |
| NETWORK | a connection, a name, a server or a process on another machine failed | again after a pause |
| MEMORY | the accelerator's memory is full | the whole recipe again with half of `engine.micro_batch_tokens` |
| FINAL | anything else: bad data, a bad recipe, a bug, a full disk | stop; the log says what to do |
"""

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

# What a process reported: {"chain": ..., "raised_in": ...}, or None where it ended without a report.
Report = dict[str, Any] | None


class Fault(Enum):
    """The kinds of failure, by what helps against them."""

    BUSY = "busy"
    LOST = "lost"
    NETWORK = "network"
    MEMORY = "memory"
    FINAL = "final"


# Seconds before each further attempt; after the last one the stage has failed.
PAUSES: dict[Fault, tuple[float, ...]] = {Fault.LOST: (5.0, 30.0), Fault.NETWORK: (10.0, 30.0, 60.0, 120.0)}
BUSY_PAUSE = 10.0

# Names of exception classes, without their modules, which differ between the libraries' versions.
_MEMORY = {"OutOfMemoryError"}
_NETWORK = {
    "APIConnectionError",  # openai
    "ClientConnectorError",  # aiohttp
    "ConnectTimeoutError",  # urllib3
    "ConnectionClosedError",
    "ConnectionError",
    "HTTPClientError",  # botocore
    "IncompleteRead",
    "InternalServerError",  # openai
    "MaxRetryError",  # urllib3
    "NewConnectionError",  # urllib3
    "ReadTimeoutError",  # urllib3
    "ServerDisconnectedError",  # aiohttp
    "Timeout",  # requests
    "TimeoutError",
    "TransportError",  # httpx
    "gaierror",
}
# The stage did its work, but MLflow did not take the record: the cause says whether its server was away.
_UNRECORDED = "TrackingError"
_LOCK_HELD = "filelock._error.Timeout"
# A process that lost another one fails in torch's communication; a launcher only says that a process failed.
_COMMUNICATION = "torch.distributed"
_LAUNCHERS = {"ChildFailedError", "CalledProcessError", "SystemExit"}


def read_reports(folder: Path) -> list[Report]:
    """Read what the processes of a stage reported in a folder."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def classify(reports: Sequence[Report], exit_code: int | None = None) -> Fault:
    """Find the fault behind a failed stage.

    Args:
        reports: reports of the stage's processes.
        exit_code: exit code of the stage's command: -n, or 128 + n from a shell, where signal n ended it; None if it is
            unknown.
    """
    raised = [report for report in reports if report and not _names(report["chain"][0]) & _LAUNCHERS]
    own = [report for report in raised if not report["raised_in"].startswith(_COMMUNICATION)]
    if any(_LOCK_HELD in classes for report in raised for classes in report["chain"]):
        return Fault.BUSY
    if any(_names(report["chain"][0]) & _MEMORY for report in raised):
        return Fault.MEMORY
    if any(_is_network(report["chain"]) for report in own):
        return Fault.NETWORK
    if own:
        return Fault.FINAL
    ended_by_signal = exit_code is not None and (exit_code < 0 or 128 < exit_code < 255)
    if ended_by_signal or None in reports:
        return Fault.LOST
    return Fault.NETWORK if raised else Fault.FINAL


def _names(classes: Sequence[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in classes}


def _is_network(chain: Sequence[Sequence[str]]) -> bool:
    """Whether an exception comes from the network; of a TrackingError the causes count."""
    first, causes = _names(chain[0]), chain[1:]
    if _UNRECORDED in first:
        return any(_names(classes) & _NETWORK for classes in causes)
    return bool(first & _NETWORK)
