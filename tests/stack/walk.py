"""The deployment guide, walked with real containers: `make stack-test`, as root, with Docker Compose; some 15 minutes.

It starts a Docker engine of its own, builds the image from deploy/Dockerfile, brings deploy/compose.yaml up, and leaves
nothing behind. Stand-ins made of Debian's packages replace the official images, moto the object store, and this
environment's packages those of the image. So it does not prove the official images, a registry, the image's packages,
GPUs, or the object store's volume. It prints seconds, and ends with an error at the first promise that is broken.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.checkouts import ROOT, checkout, short_recipe, without_formats
from tests.deploy.conftest import planted
from tests.flows.conftest import commit
from tests.stack.engine import engine, make_images, packages, said

PREFECT, MLFLOW = 14200, 15000
UID, OTHER_UID = 10001, 23456
MODEL = "stillhouse-tiny"
OVERRIDE = """
x-own: &own
  build: !reset null
  environment: {{PATH: "/opt/bin:/usr/local/bin:/usr/bin:/bin"}}
  volumes: {mounts}
services:
  postgres: {{image: stand-in/postgres}}
  objects:
    image: stillhouse:0.1.0
    environment: {{PATH: "/opt/bin:/usr/local/bin:/usr/bin:/bin"}}
    volumes: !override {mounts}
    command: [moto_server, --host, 0.0.0.0, --port, "7070"]
  prefect: {{<<: *own, ports: !override ["127.0.0.1:{prefect}:4200"]}}
  mlflow: {{<<: *own, ports: !override ["127.0.0.1:{mlflow}:5000"]}}
  setup: *own
  worker: {{<<: *own, deploy: !reset null}}
"""


@dataclass(frozen=True)
class Stack:
    """The stack of compose.yaml over a checkout, and what its .env holds."""

    folder: Path
    checkout: Path
    env: dict[str, str]

    @property
    def program(self) -> list[str]:
        """Docker Compose with the stack's files."""
        compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        files = ["--env-file", str(self.folder / "env"), "-f", str(ROOT / "deploy/compose.yaml")]
        return [*compose, *files, "-f", str(self.folder / "override.yaml")]

    def compose(self, *arguments: str, **more: str) -> str:
        """Run a command of Docker Compose; variables given by name come before those of .env."""
        return said(*self.program, *arguments, env=os.environ | more)

    def prefect(self, method: str, path: str, body: Any = None, account: str = "") -> httpx.Response:
        """Ask Prefect's API, with its password unless another account is given."""
        user, _, password = (account or self.env["PREFECT_AUTH"]).partition(":")
        return httpx.request(
            method, f"http://127.0.0.1:{PREFECT}/api{path}", json=body, auth=(user, password), timeout=60
        )

    def mlflow(self, path: str, password: str = "", **parameters: str) -> httpx.Response:
        """Ask MLflow's API as its administrator."""
        account = (self.env["MLFLOW_ADMIN"], password or self.env["MLFLOW_ADMIN_PASSWORD"])
        address = f"http://127.0.0.1:{MLFLOW}/api/2.0/mlflow/{path}"
        return httpx.get(address, params=parameters, auth=account, timeout=60)


def main() -> None:
    """Walk the guide."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="stillhouse-stack-") as name, engine(Path(name)):
        folder = Path(name)
        with step("images", found):
            make_images(folder)
        stack = make_stack(folder)
        try:
            for walked in (first_start, passwords, retrain, from_outside, restart, backup_and_restore, another_user):
                with step(walked.__name__, found):
                    found |= walked(stack)
        except Exception:
            print(stack.compose("logs", "--tail", "40"), file=sys.stderr)
            raise
        finally:
            stack.compose("down", "--volumes", "--timeout", "5")
    print(json.dumps({name: round(value, 1) for name, value in found.items()}, indent=2))


@contextmanager
def step(name: str, found: dict[str, float]) -> Iterator[None]:
    """Print a step's seconds."""
    started = time.monotonic()
    yield
    found[f"{name}_step_seconds"] = time.monotonic() - started
    print(f"{found[f'{name}_step_seconds']:6.1f} s  {name.replace('_', ' ')}", flush=True)


def make_stack(folder: Path) -> Stack:
    """Write .env, and a checkout whose owner the worker is."""
    env = planted() | {"STILLHOUSE_CHECKOUT": str(folder / "checkout"), "WORKER_UID": str(UID)}
    (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    mounts = json.dumps(packages(folder))
    (folder / "override.yaml").write_text(OVERRIDE.format(mounts=mounts, prefect=PREFECT, mlflow=MLFLOW))
    home = checkout(folder / "checkout", without_formats(short_recipe()))
    shutil.copytree(ROOT / "deploy", home / "deploy")
    commit("deploy", home)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", home], check=True)
    folder.chmod(0o755)
    return Stack(folder, home, env)


def wait_for(happened: Callable[[], bool], what: str, seconds: float) -> float:
    """Look twice a second; return the seconds until it happened.

    Raises:
        TimeoutError: it did not happen.
    """
    started = time.monotonic()
    while not happened():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)
    return time.monotonic() - started


def first_start(stack: Stack) -> dict[str, float]:
    """Every service is healthy within a minute, and the pages are there."""
    started = time.monotonic()
    stack.compose("up", "--detach", "--no-build")
    wait_for(lambda: "worker" in stack.compose("ps", "--services", "--status", "running"), "the worker", 300)
    seconds = time.monotonic() - started
    page = httpx.get(f"http://127.0.0.1:{PREFECT}/", follow_redirects=True, timeout=60)
    assert page.status_code == 200 and "<html" in page.text, page.text[:500]
    deployments = stack.prefect("POST", "/deployments/filter", {}).json()
    assert {one["name"] for one in deployments} == {"retrain", "retrain-cluster", "sign-off", "sources"}
    return {"stack_seconds": seconds}


def passwords(stack: Stack) -> dict[str, float]:
    """Neither server answers to a wrong password."""
    assert stack.prefect("POST", "/flows/filter", {}, account="operator:wrong").status_code == 401
    assert stack.mlflow("experiments/search", max_results="1").status_code == 200
    assert stack.mlflow("experiments/search", password="wrong", max_results="1").status_code == 401
    return {}


def retrain(stack: Stack) -> dict[str, float]:
    """A retrain whose worker is killed in mid-stage goes on without a person and ends with a champion."""
    deployment = stack.prefect("GET", "/deployments/name/rebuild/retrain").json()
    parameters = deployment["parameters"] | {"devices": [], "stage_hours": 1, "push": False}
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run = stack.prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", body).json()["id"]
    started = time.monotonic()
    stage_runs = {
        "flow_runs": {"id": {"any_": [run]}},
        "task_runs": {"name": {"like_": "distill"}, "state": {"type": {"any_": ["RUNNING"]}}},
    }
    wait_for(lambda: bool(stack.prefect("POST", "/task_runs/filter", stage_runs).json()), "the student", 900)
    process = said("docker", "inspect", "--format", "{{.State.Pid}}", stack.compose("ps", "--quiet", "worker").strip())
    subprocess.run(["kill", "-9", process.strip()], check=True)  # the first process: the container ends with it

    def state() -> Any:
        return stack.prefect("GET", f"/flow_runs/{run}").json()

    recovery = wait_for(lambda: state()["run_count"] == 2, "the run to go on", 600)
    wait_for(lambda: state()["state_type"] in ("COMPLETED", "FAILED", "CANCELLED"), "the run to end", 1800)
    assert state()["state_type"] == "COMPLETED", state()["state"]["message"]
    assert "of 13 stages ran" in state()["state"]["message"]
    return {"recovery_seconds": recovery, "retrain_seconds": time.monotonic() - started - recovery}


def from_outside(stack: Stack) -> dict[str, float]:
    """The champion can be loaded outside of the stack, as the guide says."""
    code = f"import mlflow; print(mlflow.pyfunc.load_model('models:/{MODEL}@champion').predict(['a hat']).shape)"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{MLFLOW}",
        "MLFLOW_TRACKING_USERNAME": stack.env["MLFLOW_ADMIN"],
        "MLFLOW_TRACKING_PASSWORD": stack.env["MLFLOW_ADMIN_PASSWORD"],
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    }
    said(sys.executable, "-c", code, env=environment, timeout=300)
    return {}


def restart(stack: Stack) -> dict[str, float]:
    """The servers come back with what they knew."""
    stack.compose("restart", "prefect", "mlflow")
    wait_for(lambda: answers(lambda: champion(stack) == "1"), "MLflow to know the champion", 120)
    wait_for(lambda: answers(lambda: len(stack.prefect("POST", "/flow_runs/filter", {}).json()) > 0), "Prefect", 120)
    return {}


def answers(ask: Callable[[], bool]) -> bool:
    """Tell whether a server that starts gives the answer."""
    try:
        return ask()
    except (httpx.HTTPError, KeyError, ValueError):
        return False


def champion(stack: Stack) -> str:
    """Return the champion's version."""
    reply = stack.mlflow("registered-models/alias", name=MODEL, alias="champion").json()
    return str(reply["model_version"]["version"])


def backup_and_restore(stack: Stack) -> dict[str, float]:
    """Databases that were dumped and lost are there again, by the guide's own commands."""
    run_guide(stack, "pg_dump")
    stack.compose("down", "--volumes", "--timeout", "5")
    run_guide(stack, "pg_restore")
    wait_for(lambda: answers(lambda: champion(stack) == "1"), "MLflow to know the champion", 120)
    return {}


def run_guide(stack: Stack, word: str) -> None:
    """Run the guide's commands in which a word stands, without those for the object store's volume."""
    guide = (ROOT / "docs/guides/deployment.md").read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"```sh\n(.*?)```", guide, re.S) if word in block)
    commands = re.sub(r"^stack=.*\n|^docker run (?:.*\\\n)*.*\n", "", block, flags=re.M)
    script = f"set -eu\nstack={shlex.quote(' '.join(stack.program))}\n{commands}"
    said("bash", "-c", script, cwd=stack.folder, timeout=600)


def another_user(stack: Stack) -> dict[str, float]:
    """An owner of the checkout whom no passwd file knows can run what the worker runs, and compile."""
    subprocess.run(["chown", "-R", str(OTHER_UID), stack.checkout], check=True)
    ask = ("python", "-c", "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())")
    compiled = ("python", "-c", "import torch; torch.compile(lambda x: torch.sin(x) * 2)(torch.ones(8))")
    for command in (ask, ("dvc", "version"), ("git", "status"), ("prefect", "version"), compiled):
        stack.compose("run", "--rm", "--no-deps", "worker", *command, WORKER_UID=str(OTHER_UID))
    return {}


if __name__ == "__main__":
    main()
