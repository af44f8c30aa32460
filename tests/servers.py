"""Real servers on loopback, for tests and measurements."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

SECONDS = 900  # until a server is up, on a busy machine


def wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it answers; fails with the end of its log where it does not, or has ended."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(address).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"{address} did not come up: {log.read_text()[-3000:]}")


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(command: Sequence[str], health: str, log: Path, **options: Any) -> Iterator[None]:
    """A server and all that it starts, from when `health` answers until the end of the block."""
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, **options)
    try:
        wait_until_up(health, server, log)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server with its home and its database in a folder; the address of its API."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with serving(command, f"{api}/health", folder / "prefect.log", env={**os.environ, **own}):
        yield api
