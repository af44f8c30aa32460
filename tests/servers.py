"""A real Prefect server on loopback, for tests and measurements."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server with its home and its database in a folder; the address of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    log = folder / "prefect.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/api/health", server, log)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
