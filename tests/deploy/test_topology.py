"""A retrain through the whole stack: PostgreSQL, S3, Prefect with a worker and a password, MLflow with accounts.

One build for all tests of this file: the tiny recipe without its long texts and without formats. While its student is
trained, PostgreSQL goes and the object store hangs for half a minute; while it learns retrieval, the worker is killed.
Cancel and resume are tested in tests/flows, on a smaller server.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.failure_causes import Fault, classify, read_reports
from stages.recipe.paths import FAILURES_VARIABLE
from stages.release.verification import release_faults
from tests.checkouts import checkout, short_recipe, without_formats
from tests.deploy.conftest import ROOT, Stack, free_port, mlflow_server, service, stack_on_loopback
from tests.flows.conftest import commit, git

pytestmark = pytest.mark.slow

MODEL = "stillhouse-tiny"
SECONDS = 1800  # that a flow may take on a busy machine
OUTAGE_SECONDS = 30
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
GATES = ("retrieval_retention", "served_cosine_min", "validation_failures", "licenses_not_allowed", "formats_left_out")
READER = ("reader", "reads-and-no-more")
YES = {"decision": "approve", "name": "Ada", "reason": "reads well"}


@dataclass(frozen=True)
class Retrain:
    """A flow run of rebuild/retrain that has ended, and the sign-off that it asked for."""

    stack: Stack
    run: dict[str, Any]
    asked: dict[str, Any]

    @property
    def workspace(self) -> Path:
        return Path(self.asked["parameters"]["folder"])


def signed_off_by_people() -> dict[str, Any]:
    """The short recipe without formats, and people to sign off."""
    recipe = without_formats(short_recipe())
    recipe["promote"]["signoff"] = "human"
    recipe["promote"]["gates"] = {name: recipe["promote"]["gates"][name] for name in GATES}
    return recipe


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over a checkout of the short tiny recipe, with a DVC remote and a git remote."""
    folder = tmp_path_factory.mktemp("stack")
    home = checkout(folder / "checkout", signed_off_by_people())
    shutil.copytree(ROOT / "deploy", home / "deploy")
    remote = ["remote", "add", "--quiet", "--default", "outputs", str(folder / "outputs")]
    subprocess.run([sys.executable, "-m", "dvc", *remote], cwd=home, check=True)
    git("init", "--quiet", "--bare", str(folder / "origin"))
    git("remote", "add", "origin", str(folder / "origin"), folder=home)
    commit("short", home)
    with stack_on_loopback(folder, home) as running:
        yield running


@pytest.fixture(scope="module")
def retrain(stack: Stack) -> Iterator[Retrain]:
    """The deployment of deploy/prefect.yaml, started as Prefect's page starts it, by a request."""
    deployment = stack.api("GET", "/deployments/name/rebuild/retrain")
    parameters = {"devices": [], "stage_hours": 1, "push": True, "release": True}
    body = {"parameters": deployment["parameters"] | parameters, "state": {"type": "SCHEDULED"}}
    started = stack.api("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    database_and_objects_go(stack, started["id"], "distill")
    runs(stack, started["id"], "adapt@retrieval")
    kill_with_all_below(stack.processes["worker"].pid)
    with service(stack, "worker", None) as stack.processes["worker"]:
        run = ended(stack, started["id"], states=("COMPLETED", "FAILED", "CANCELLED"))
        assert run["state_type"] == "COMPLETED", f"{run['state']['message']}\n{logs(stack)[-5000:]}"
        asked = stack.api("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["release"]}}})
        assert len(asked) == 1
        yield Retrain(stack, run, asked[0])


def runs(stack: Stack, run_id: str, task: str) -> None:
    """Wait until a stage of a flow run runs."""
    body = {
        "flow_runs": {"id": {"any_": [run_id]}},
        "task_runs": {"name": {"like_": task}, "state": {"type": {"any_": ["RUNNING"]}}},
    }
    wait_for(lambda: bool(stack.api("POST", "/task_runs/filter", body)), f"{task} to run")


def database_and_objects_go(stack: Stack, run_id: str, task: str) -> None:
    """While a stage runs: PostgreSQL is gone and the object store says nothing, for half a minute."""
    runs(stack, run_id, task)
    stack.postgres.stop()
    os.killpg(stack.processes["objects"].pid, signal.SIGSTOP)
    time.sleep(OUTAGE_SECONDS)
    os.killpg(stack.processes["objects"].pid, signal.SIGCONT)
    stack.postgres.start()


def kill_with_all_below(pid: int) -> None:
    """End a process and all that it started, as a container or a machine that goes does: nobody can report it."""
    worker = psutil.Process(pid)
    for process in [worker, *worker.children(recursive=True)]:
        process.kill()


def wait_for(happened: Callable[[], bool], what: str) -> None:
    """Look twice a second.

    Raises:
        AssertionError: it did not happen.
    """
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.5)


def ended(stack: Stack, run_id: str, states: tuple[str, ...] = ENDED) -> Any:
    """A flow run once it is in one of some states."""
    run: Any = {}

    def over() -> bool:
        run.update(stack.api("GET", f"/flow_runs/{run_id}"))
        return run["state_type"] in states

    wait_for(over, f"flow run {run_id} to be one of {states}")
    return run


def logs(stack: Stack) -> str:
    """All that flows and tasks have logged."""
    lines: list[str] = []
    while page := stack.api("POST", "/logs/filter", {"offset": len(lines), "limit": 200, "sort": "TIMESTAMP_ASC"}):
        lines += [one["message"] for one in page]
    return "\n".join(lines)


def test_a_retrain_leaves_its_outputs_its_branch_and_its_version_where_they_belong(retrain: Retrain) -> None:
    stack = retrain.stack
    assert "of 13 stages ran" in retrain.run["state"]["message"]
    (branch,) = git(
        "branch", "--list", "retrain/*", "--format=%(refname:short)", folder=stack.folder / "origin"
    ).split()
    assert "data/promoted" in git("show", f"{branch}:dvc.lock", folder=stack.folder / "origin")
    assert git("status", "--porcelain", folder=stack.checkout) == ""
    dvc_status = [sys.executable, "-m", "dvc", "status", "--cloud", "--json"]
    assert subprocess.run(dvc_status, cwd=retrain.workspace, stdout=subprocess.PIPE, check=True).stdout.strip() == b"{}"
    release = retrain.workspace / "data/quantized" / MODEL
    assert release_faults(release, embed=False, threads=1) == []
    assert not [path.name for path in release.iterdir() if path.name.startswith(("onnx", "openvino"))]
    stages = json.loads(stack.api("GET", "/artifacts/rebuild-stages/latest")["data"])
    planned = {one["stage"] for one in stages if one["planned device-hours"]}
    assert planned == {"embed", "distill", *(one["stage"] for one in stages if one["stage"].startswith("adapt@"))}
    version = stack.mlflow("GET", "model-versions/get", stack.admin, name=MODEL, version="1").json()["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["validation_status"] == "passed"
    served = [name for name in objects(stack) if name.endswith("/MLmodel")]
    assert len(served) == 1, "the model that the registry serves lies in the object store"
    asked = (stack.folder / "objects.log").read_text(encoding="utf-8")
    assert "GET /mlflow" in asked and "X-Amz-Signature" not in asked, "MLflow alone asks the object store"


def test_a_run_whose_worker_is_killed_goes_on_without_a_person(retrain: Retrain) -> None:
    states = retrain.stack.api("GET", f"/flow_runs/{retrain.run['id']}/graph-v2")["states"]
    passed = [state["type"] for state in states if state["type"] not in ("SCHEDULED", "PENDING")]
    assert passed == ["RUNNING", "CRASHED", "RUNNING", "COMPLETED"]
    assert retrain.run["run_count"] == 2


def objects(stack: Stack) -> dict[str, bytes]:
    """Everything in MLflow's bucket."""
    import boto3

    address = f"http://127.0.0.1:{stack.ports['objects']}"
    access = {"aws_access_key_id": "objects", "aws_secret_access_key": stack.env["OBJECTS_SECRET_KEY"]}
    bucket = boto3.resource("s3", endpoint_url=address, region_name="us-east-1", **access).Bucket("mlflow")
    return {one.key: one.get()["Body"].read() for one in bucket.objects.all()}


def test_people_sign_off_by_prefect_s_api_and_the_registry_shows_it_to_accounts_alone(retrain: Retrain) -> None:
    stack = retrain.stack
    alias = {"name": MODEL, "alias": "champion"}
    where = "registered-models/alias"
    assert stack.mlflow("GET", where, stack.admin, **alias).status_code in (400, 404), "nobody signed it off yet"
    run_id = retrain.asked["id"]
    assert ended(stack, run_id, states=(*ENDED, "PAUSED"))["state_name"] == "Suspended", logs(stack)[-5000:]
    os.killpg(stack.processes["worker"].pid, signal.SIGKILL)  # nobody needs it while people think
    wait_for(lambda: accepted(stack, run_id), "the form to take an answer")
    with service(stack, "worker", None):
        assert ended(stack, run_id)["state_type"] == "COMPLETED", logs(stack)[-5000:]
    made = stack.mlflow("POST", "users/create", stack.admin, username=READER[0], password=READER[1])
    assert made.status_code == 200, made.text
    for account in (stack.admin, READER):
        answer = stack.mlflow("GET", where, account, **alias)
        assert answer.json()["model_version"]["version"] == "1", answer.text
    for account in (None, (stack.admin[0], "wrong"), ("nobody", stack.admin[1])):
        assert stack.mlflow("GET", where, account, **alias).status_code == 401
    assert stack.mlflow("POST", where, READER, **alias, version="1").status_code == 403, "who reads may not promote"


def accepted(stack: Stack, run_id: str) -> bool:
    """Whether the form took the answer; its fields may not be there yet."""
    reply = stack.api("POST", f"/flow_runs/{run_id}/resume", {"run_input": YES})
    assert reply["status"] == "ACCEPT" or "schema not found" in str(reply), reply
    return bool(reply["status"] == "ACCEPT")


def test_wrong_credentials_stop_a_stage_for_good_and_are_not_shown(retrain: Retrain, tmp_path: Path) -> None:
    environment = stage_environment(retrain.stack, tmp_path) | {"MLFLOW_TRACKING_PASSWORD": "a-wrong-password"}
    lineage = (retrain.workspace / "data/lineage/promote.json").read_bytes()
    code = (
        "from stages.tracking.failure_report import reported_failure\nfrom stages.tracking.runs import stage_run\n"
        "with reported_failure(), stage_run('promote', {'name': 'tiny'}, []): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=retrain.workspace, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "MLflow could not record it" in done.stderr and "401" in done.stderr
    assert "a-wrong-password" not in done.stderr
    assert classify(read_reports(tmp_path), done.returncode) is Fault.FINAL
    assert (retrain.workspace / "data/lineage/promote.json").read_bytes() == lineage


def stage_environment(stack: Stack, failures: Path) -> dict[str, str]:
    """Environment of a stage that runs on the worker and reports its failures in a folder."""
    own = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "OMP_NUM_THREADS": "1", FAILURES_VARIABLE: str(failures)}
    return stack.environment("worker") | own


def test_no_password_is_in_anything_that_the_retrain_wrote(retrain: Retrain) -> None:
    stack = retrain.stack
    planted = {name: word.rpartition(":")[2] for name, word in stack.env.items() if len(word) > 20}
    assert len(planted) == 7
    written = {"logs": logs(stack).encode(), **objects(stack)}
    for kind in ("flow_runs", "task_runs", "artifacts", "variables", "block_documents"):
        written[kind] = str(stack.api("POST", f"/{kind}/filter", {"limit": 200})).encode()
    written["experiments"] = stack.mlflow("POST", "runs/search", stack.admin, **all_runs(stack)).content
    written["versions"] = stack.mlflow("GET", "model-versions/search", stack.admin).content
    written["commits"] = git("log", "--patch", "--all", folder=stack.checkout).encode()
    for folder in (stack.checkout, stack.folder / "outputs", stack.folder / "worker"):
        written |= {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    written["worker"] = (stack.folder / "worker.log").read_bytes()
    assert b"of 13 stages ran" in written["logs"] and b"distill.backbone.path" in written["experiments"]
    found = [
        (where, name) for where, text in written.items() for name, word in planted.items() if word.encode() in text
    ]
    assert found == []


def all_runs(stack: Stack) -> dict[str, Any]:
    """The request for every run of every experiment."""
    experiments = stack.mlflow("GET", "experiments/search", stack.admin, max_results=100).json()["experiments"]
    return {"experiment_ids": [one["experiment_id"] for one in experiments], "max_results": 1000}


def test_a_server_that_goes_at_the_end_of_training_costs_no_training(retrain: Retrain, tmp_path: Path) -> None:
    """MLflow is killed when the student is written; with MLflow back the next try logs it and trains nothing."""
    going = replace(retrain.stack, ports={**retrain.stack.ports, "mlflow": free_port()})
    output = retrain.workspace / "data/distilled"
    before = files(output)
    shutil.rmtree(output)
    command = [sys.executable, "-u", "-m", "stages.distill"]
    with mlflow_server(going):
        stage = subprocess.Popen(
            command, cwd=retrain.workspace, env=stage_environment(going, tmp_path), text=True, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + SECONDS
        while not (output / "curve.csv").exists() and stage.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    said = stage.communicate(timeout=SECONDS)[1]
    assert stage.returncode == 1 and classify(read_reports(tmp_path), stage.returncode) is Fault.NETWORK, said
    environment = stage_environment(retrain.stack, tmp_path)
    again = subprocess.run(command, cwd=retrain.workspace, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert files(output) == before
    for phase in ("student", "continued"):
        assert f"{phase}:   0%" in said and f"{phase}:   0%" not in again.stderr, "it was trained once"


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
