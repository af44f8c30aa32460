"""Processes of a rebuild: guarded, stopped together, and none started once the rebuild has to end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from flows import guard

GUARD = (sys.executable, "-P", guard.__file__)
END_SECONDS = guard.TERM_SECONDS + guard.KILL_SECONDS + 2.0
# Set once the rebuild has to end: a stage that a freed slot would let in does not start.
STOP = threading.Event()
_running: set[subprocess.Popen[str]] = set()


class Stopped(RuntimeError):
    """The rebuild was told to end, so this did not start, or did not go on."""


@contextmanager
def guarded(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command, with what it prints as text; nothing of it is left when the block ends.

    Raises:
        Stopped: the rebuild has to end.
    """
    if STOP.is_set():
        raise Stopped(f"not started, because the rebuild was told to end: {command[0]}")
    process = subprocess.Popen(
        [*GUARD, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _running.add(process)
    try:
        if STOP.is_set():  # between the look above and here
            raise Stopped("the rebuild was told to end")
        yield process
    finally:
        end(process)
        _running.discard(process)


def release(process: subprocess.Popen[str]) -> None:
    """Close the pipe that keeps the command alive; its guard does the rest."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def end(process: subprocess.Popen[str]) -> None:
    """Have the guard stop its command, and kill the guard's group if it does not."""
    release(process)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def output(command: Sequence[str], folder: Path) -> str:
    """What a short command prints, without the last newline.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise RuntimeError(f"`{' '.join(command)}` failed with exit code {done.returncode} in {folder}:\n{said}")
    return done.stdout.rstrip("\n")


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Within the block a SIGTERM first stops every stage, then goes to whoever handled it before: Prefect, or Python.

    Prefect would only raise an exception in the main thread, while stages go on in others.
    """
    STOP.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        stop_all()
        if callable(earlier):
            earlier(number, frame)
        else:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def stop_all() -> None:
    """Let no stage start, end all that run at once, and wait until they have ended."""
    STOP.set()
    running = tuple(_running)
    for process in running:
        release(process)
    deadline = time.monotonic() + END_SECONDS
    while any(map(_alive, running)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _alive(process: subprocess.Popen[str]) -> bool:
    # Not `poll`: this runs in a signal handler, maybe inside that process's own `wait`.
    try:
        return psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
