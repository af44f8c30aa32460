"""Why a stage failed, and whether trying again can help: by how it ended and by the exception that ended it.

A stage ends with 0, by a signal, or with 1 and a last line that says why. DVC passes on neither code nor signal but
names it, so both are read from the log:

| fault | how it shows | what follows |
| --- | --- | --- |
| BUSY | another process holds the teacher's store or this run's checkpoint | again, until the stage's limit |
| LOST | a signal ended it: a lost worker, the kernel short of memory | again; training goes on from its checkpoint |
| NETWORK | a connection, a name, a server or another machine's process failed | again after a pause |
| MEMORY | the accelerator's memory is full | the whole recipe again with half of `engine.micro_batch_tokens` |
| FINAL | anything else: bad data, a bad recipe, a bug, a full disk | stop; the log says what to do |
"""

import re
from collections.abc import Sequence
from enum import Enum


class Fault(Enum):
    """What kind of failure a stage's end was."""

    BUSY = "busy"
    LOST = "lost"
    NETWORK = "network"
    MEMORY = "memory"
    FINAL = "final"


# Seconds before each further attempt; then the fault counts as lasting.
PAUSES: dict[Fault, tuple[float, ...]] = {Fault.LOST: (5.0, 30.0), Fault.NETWORK: (10.0, 30.0, 60.0, 120.0)}
BUSY_PAUSE = 10.0

# Of stages.embed and stages.training.checkpoints.
_BUSY = re.compile(r"another process (writes to|is training) ")
# Of a training stage of several processes, torch's launcher says how the first of them ended.
_RANK_EXIT = re.compile(r"^\s*exitcode\s*: -(\d+) ", re.MULTILINE)
# How processes end that only lost another one: stopped by their launcher, by NCCL's watchdog, or by these exceptions.
_STOPPED = {"6", "15"}
_LEFT = re.compile(r"RuntimeError: \[.*\bgloo\b|Dist(?:Backend|Network|Store)Error")
# DVC's last line; a shell says 128 + n where signal n ended its command.
_EXIT = re.compile(r"failed to run: .* exited with (-?\d+)")
_EXCEPTION = re.compile(
    r"^(?:\[rank\d+\]: )?(?:\w+\.)*(\w*(?:Error|Exception|Timeout|Disconnected)|IncompleteRead|gaierror): "
)
# They only say that a process failed, whose own exception stands above.
_LAUNCHERS = {"ChildFailedError", "CalledProcessError"}
_MEMORY = {"OutOfMemoryError"}
_NETWORK = {
    "APIConnectionError",
    "APITimeoutError",
    "ClientConnectorError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectTimeoutError",
    "ConnectionAbortedError",
    "ConnectionClosedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "EndpointConnectionError",
    "IncompleteRead",
    "InternalServerError",
    "MaxRetryError",
    "NewConnectionError",
    "ReadTimeout",
    "ReadTimeoutError",
    "RemoteDisconnected",
    "RemoteProtocolError",
    "ServerDisconnectedError",
    "TimeoutError",
    "gaierror",
}
# MLflow's server was away: the stage's own exception only says that it could not be recorded.
_UNRECORDED = re.compile(
    r"MLflow could not record it: .*(Max retries exceeded|Connection|timed out|error code 50[234])"
)


def classify(lines: Sequence[str]) -> Fault:
    """The fault behind a failed stage, from its last lines as DVC printed them."""
    text = "\n".join(lines)
    if _BUSY.search(text):
        return Fault.BUSY
    said = [found for line in lines if (found := _EXCEPTION.match(line)) and found[1] not in _LAUNCHERS]
    names = [found[1] for found in said if not _LEFT.search(found.string)]
    if _MEMORY & set(names):
        return Fault.MEMORY
    if (names and names[-1] in _NETWORK) or _UNRECORDED.search(text):
        return Fault.NETWORK
    exits, signals = _EXIT.findall(text), set(_RANK_EXIT.findall(text))
    by_signal = exits and (int(exits[-1]) < 0 or int(exits[-1]) > 128) and int(exits[-1]) != 255
    if by_signal or signals - _STOPPED or (signals and not names):
        return Fault.LOST
    return Fault.NETWORK if said and not names else Fault.FINAL
