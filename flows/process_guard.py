"""Run a command and leave no process of it behind: `python process_guard.py COMMAND...`.

Standard input is a pipe whose other end the starter holds. That end closes when the starter wants the command stopped
and when the starter is killed. Then every process that the command started gets SIGTERM, and SIGKILL if it does not
end. So a cancel, a timeout and a kill -9 of the flow all stop a stage the same way, and no second writer outlives the
flow.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import psutil

# Long enough for a stage to end its MLflow run; together with KILL_SECONDS well under the 10 s that a cancel may take.
TERM_SECONDS = 4.0
KILL_SECONDS = 2.0
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(command: list[str]) -> int:
    """Run the command and return its exit code, which is 128 + n where signal n ended it."""
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
    """Make processes whose parent died children of this process, so that it finds them (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_end_of_input(stopped: threading.Event) -> None:
    """Set the event when the starter has closed its end of the pipe."""
    while os.read(0, 1024):
        pass
    stopped.set()


def stop_descendants() -> None:
    """Send SIGTERM to every process below this one, wait, and kill those that remain."""
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
    """List the running processes below this one, of any session."""
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
