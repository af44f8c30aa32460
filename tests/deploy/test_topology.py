"""A retrain through the servers of the stack: scheduled, cancelled, resumed; passwords asked for, and shown nowhere."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.conftest import PLANTED, Stack
from tests.flows.conftest import git
from tests.servers import SECONDS, running

WORKER = [Path(sys.executable).with_name("prefect"), "worker", "start", "--pool", "machines", "--limit", "2"]


def schedule(stack: Stack) -> str:
    """Id of a run of the deployment `retrain`, due now."""
    deployment = stack.prefect.get("/deployments/name/rebuild/retrain").json()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    body = {"parameters": {"devices": [], "push": True}, "state": state}
    run: str = stack.prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json=body).json()["id"]
    return run


def tasks(stack: Stack, run: str) -> dict[str, str]:
    found = stack.prefect.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run]}}}).json()
    return {task["name"].partition("-")[0]: task["state_type"] for task in found}


def state(stack: Stack, run: str) -> str:
    found: str = stack.prefect.get(f"/flow_runs/{run}").json()["state_type"]
    return found


def wait_for(condition: Callable[[], bool], what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def logs(stack: Stack, run: str) -> str:
    body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    return "\n".join(log["message"] for log in stack.prefect.post("/logs/filter", json=body).json())


def test_a_retrain_is_scheduled_cancelled_and_resumed(stack: Stack, tmp_path: Path) -> None:
    checkpoint = stack.home / ".stillhouse/checkpoints/step"
    with running(WORKER, tmp_path / "worker.log", stack.environment, stack.home):
        first = schedule(stack)
        wait_for(checkpoint.exists, lambda: (state(stack, first), (tmp_path / "worker.log").read_text()[-3000:]))
        # One slot for stages without a GPU: the other adapter waits, or was before.
        assert sorted(tasks(stack, first).values()).count("RUNNING") == 1
        stack.prefect.post(f"/flow_runs/{first}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
        wait_for(lambda: state(stack, first) in ("CANCELLED", "CRASHED"), lambda: logs(stack, first))
        assert tasks(stack, first)["adapt@retrieval"] == "CANCELLED"
        limits = stack.prefect.post("/v2/concurrency_limits/filter", json={}).json()
        assert {one["name"]: one["active_slots"] for one in limits} == {"tag:gpu": 0, "tag:cpu-heavy": 0}

        second = schedule(stack)
        wait_for(lambda: state(stack, second) in ("COMPLETED", "FAILED", "CRASHED"), lambda: logs(stack, second))
        text = logs(stack, second)
        assert state(stack, second) == "COMPLETED", text
    assert "resumed from step 7" in text
    assert "mlflow answered 200" in text
    assert git("branch", "--list", "retrain/*", folder=stack.home)
    outputs = stack.home.parent / "outputs"
    assert any(path.is_file() for path in outputs.rglob("*"))
    # Nothing that a run wrote has a password in it.
    written = [path for path in stack.home.rglob("*") if path.is_file()] + [tmp_path / "worker.log"]
    artifacts = str(stack.prefect.post("/artifacts/filter", json={}).json())
    for secret in PLANTED:
        assert secret not in text
        assert secret not in artifacts
        assert not [path for path in written if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("address", ["prefect", "mlflow"])
def test_a_server_refuses_who_brings_no_password(stack: Stack, address: str) -> None:
    if address == "prefect":
        answer = httpx.post(f"{stack.environment['PREFECT_API_URL']}/flow_runs/filter", json={})
    else:
        answer = httpx.get(f"{stack.mlflow}/api/2.0/mlflow/experiments/search?max_results=1")
    assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_artefacts_go_to_the_object_store(stack: Stack) -> None:
    import boto3

    secret = stack.environment["AWS_SECRET_ACCESS_KEY"]
    store = boto3.client(
        "s3",
        endpoint_url=stack.environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="objects",
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
    address = f"{stack.mlflow}/api/2.0/mlflow-artifacts/artifacts/report.html"
    user = ("admin", stack.environment["MLFLOW_TRACKING_PASSWORD"])
    httpx.put(address, content=b"<p>good</p>", auth=user).raise_for_status()
    assert store.get_object(Bucket="mlflow", Key="report.html")["Body"].read() == b"<p>good</p>"
