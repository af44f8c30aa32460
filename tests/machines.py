"""Machines of a cluster on this one, by deploy/machine.sh."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from flows.process_group import GUARD, stop_command
from tests.servers import free_port

SCRIPT = Path(__file__).resolve().parents[1] / "deploy/machine.sh"
SECONDS = 300  # for anything, on a busy machine
# What the first machine is told: hand on its environment, which commands there have, and wait.
WAIT = """
import json, os, time
with open("partial", "w") as file:
    json.dump(dict(os.environ), file)
os.rename("partial", "told")
time.sleep(1e6)
"""


@contextmanager
def machine(index: int, folder: Path, environment: dict[str, str], *command: str) -> Iterator[psutil.Process]:
    """One machine of two, and all that it starts, from the start of the script until the end of the block."""
    with (folder / f"machine-{index}.log").open("wb") as log:
        guard = subprocess.Popen(
            [*GUARD, "sh", str(SCRIPT), "--machines=2", *command],
            cwd=folder,
            env=environment | {"JOB_COMPLETION_INDEX": str(index)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        yield psutil.Process(guard.pid)
    finally:
        stop_command(guard)
        guard.wait(60)


@contextmanager
def first_machine(folder: Path) -> Iterator[dict[str, str]]:
    """The first machine of two; the environment of a command there, which is also what the second one needs."""
    import ray

    with tempfile.TemporaryDirectory() as sockets:  # whose paths must be short
        given = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "FIRST_MACHINE": ray.util.get_node_ip_address(),
            "RAY_PORT": str(free_port()),
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": sockets,
        }
        with machine(0, folder, given, sys.executable, "-c", WAIT):
            wait_for((folder / "told").exists)
            yield json.loads((folder / "told").read_text())


def wait_for(what: Callable[[], object], seconds: float = SECONDS) -> None:
    """Until it is so; fails where that takes longer."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)
