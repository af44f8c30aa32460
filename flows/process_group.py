"""The processes of a rebuild: each runs under a guard, and all stop together when the rebuild has to end."""

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

from flows import process_guard
from stages.recipe.process_environment import child_environment, git_environment
from stages.recipe.redaction import redacted

GUARD = (sys.executable, "-P", process_guard.__file__)
END_SECONDS = process_guard.TERM_SECONDS + process_guard.KILL_SECONDS + 2.0
EXIT_SECONDS = 20.0  # after a signal, for Prefect to record the state of the run
# Set once the rebuild has to end, so that no stage starts in a slot that becomes free.
STOP = threading.Event()
_running: set[subprocess.Popen[str]] = set()


class Stopped(RuntimeError):
    """The rebuild was told to end, so a process did not start or was stopped."""


@contextmanager
def guarded(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command under a guard; no process of the command is left when the block ends.

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
        if STOP.is_set():  # set after the first check
            raise Stopped("the rebuild was told to end")
        yield process
    finally:
        end(process)
        _running.discard(process)


def stop_command(process: subprocess.Popen[str]) -> None:
    """Close the pipe that keeps the command alive; its guard then stops the command."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def end(process: subprocess.Popen[str]) -> None:
    """Have the guard stop its command, and kill the guard's process group where the guard does not end in time."""
    stop_command(process)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, free of hooks and personal settings, and return its output without the last newline.

    Raises:
        RuntimeError: git failed; the message has its output.
    """
    return output(["git", *arguments], folder, git_environment())


def output(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a short command and return its output without the last newline.

    Raises:
        RuntimeError: the command failed; the message has its output.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=child_environment() if environment is None else environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",  # as Python writes names of files in another encoding
        check=False,
    )
    if done.returncode:
        said = redacted(f"{done.stdout}\n{done.stderr}".strip())
        raise RuntimeError(f"`{' '.join(command)}` failed with exit code {done.returncode} in {folder}:\n{said}")
    return done.stdout.rstrip("\n")


@contextmanager
def stopping_all() -> Iterator[None]:
    """Stop every stage before an exception leaves the block: a SIGTERM, Ctrl-C or an error.

    Prefect turns a SIGTERM into an exception in the main thread, while stages run in other threads. This code sets no
    signal handler, because Prefect records a cancel as a crash where another handler takes SIGTERM.
    """
    STOP.clear()
    try:
        yield
    except BaseException as error:
        stop_all()
        if not isinstance(error, Exception):
            # A thread that waits for a slot cannot be woken, so the process exits without it.
            last = threading.Timer(EXIT_SECONDS, os._exit, [128 + signal.SIGTERM])
            last.daemon = True
            last.start()
        raise


def stop_all() -> None:
    """Let no stage start, stop all running ones at once, and wait until they have ended."""
    STOP.set()
    running = tuple(_running)
    for process in running:
        stop_command(process)
    deadline = time.monotonic() + END_SECONDS
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(0.05)
