"""Run a command and leave nothing of it behind, however it or its starter ends: `python guard.py COMMAND...`.

Standard input is a pipe whose other end the starter holds. When that end closes, because the starter wants the command
stopped or because it was killed itself, everything that the command started is told to end, and killed where it does
not. So a cancel, a timeout and a kill -9 of the flow all stop a stage the same way, and no second writer outlives it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import psutil

# For stages to say goodbye to MLflow; with KILL_SECONDS well under the 10 s in which a cancel has to be over.
TERM_SECONDS = 4.0
KILL_SECONDS = 2.0
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(command: list[str]) -> int:
    """Run the command; returns its exit code, 128 + n where signal n ended it."""
    adopt_orphans()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=wait_for_end_of_input, args=[stopped], daemon=True).start()
    while child.poll() is None and not stopped.wait(0.05):
        pass
    stop_descendants()
    return code if (code := child.wait()) >= 0 else 128 - code


def adopt_orphans() -> None:
    """Have processes whose parent died become children of this one, so that they can be found; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_end_of_input(stopped: threading.Event) -> None:
    """Set the event when the starter has closed its end of the pipe."""
    while os.read(0, 1024):
        pass
    stopped.set()


def stop_descendants() -> None:
    """Ask every process below this one to end, wait a little, kill what is left."""
    for number, patience in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        for process in living_descendants():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        deadline = time.monotonic() + patience
        while living_descendants() and time.monotonic() < deadline:
            time.sleep(0.05)


def living_descendants() -> list[psutil.Process]:
    """Processes below this one, in whatever session, that have not ended."""
    living = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
        except psutil.NoSuchProcess:
            continue
    return living


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
