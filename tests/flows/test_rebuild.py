"""The rebuild flow on a real Prefect server and a small DVC project whose stages are shell commands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.rebuild import rebuild
from flows.stage_task import StageFailed
from tests.flows.conftest import ROOT, commit, git, made

FLOW_SECONDS = 900
DVC = (sys.executable, "-m", "dvc")


@pytest.fixture
def prefect(api: str, project: Path) -> Iterator[str]:
    """Address of the server that flows of this process use, in the project."""
    with temporary_settings({PREFECT_API_URL: api}):
        yield api


def started(api: str, *arguments: str) -> "subprocess.Popen[str]":
    """`stillhouse rebuild` in the project."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "rebuild", *arguments],
        env={**os.environ, "PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finished(process: "subprocess.Popen[str]") -> str:
    """The flow's output, once it has ended; nothing of it is left behind when it does not end."""
    try:
        return process.communicate(timeout=FLOW_SECONDS)[0]
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


def latest_run(api: str) -> dict[str, Any]:
    body = {"flows": {"name": {"any_": ["rebuild"]}}, "sort": "START_TIME_DESC", "limit": 1}
    runs = httpx.post(f"{api}/flow_runs/filter", json=body).json()
    run: dict[str, Any] = runs[0]
    return run


def tasks_of(api: str, run: dict[str, Any]) -> dict[str, str]:
    """States by name of task; one that never began has a suffix of Prefect's, left out here."""
    body = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    found = httpx.post(f"{api}/task_runs/filter", json=body).json()
    return {task["name"].partition("-")[0]: task["state_type"] for task in found}


def logs_of(api: str, run: dict[str, Any]) -> str:
    body = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    deadline = time.monotonic() + 30
    while True:  # logs are sent in the background
        text = "\n".join(log["message"] for log in httpx.post(f"{api}/logs/filter", json=body).json())
        if "Finished in state" in text or time.monotonic() > deadline:
            return text
        time.sleep(0.2)


def artifact(api: str, key: str) -> Any:
    return httpx.get(f"{api}/artifacts/{key}/latest").json()["data"]


@pytest.mark.slow
def test_a_rebuild_leaves_a_branch_and_the_checkout_as_it_was(prefect: str) -> None:
    state = rebuild(return_state=True)
    assert state.message.startswith("4 of 4 stages ran. To take it over into a checkout: git merge retrain/")
    run = latest_run(prefect)
    stages = ["curate", "adapt@retrieval", "adapt@clustering", "evaluate"]
    assert tasks_of(prefect, run) == dict.fromkeys(stages, "COMPLETED")
    assert f"build prefect-{run['id']}" in logs_of(prefect, run)
    assert "## tiny version 3: passed (challenger)" in artifact(prefect, "rebuild")
    assert artifact(prefect, "rebuild-progress") == 100.0
    assert git("status", "--porcelain") == ""
    assert not list(Path(".stillhouse/workspaces").iterdir())
    assert not Path("data/curated.txt").exists()
    (branch,) = git("branch", "--list", "retrain/*", "--format=%(refname:short)").splitlines()
    git("merge", "--quiet", branch)
    subprocess.run([*DVC, "checkout", "--quiet"], check=True)
    assert Path("data/evaluated/figures.json").is_file()
    assert subprocess.run([*DVC, "status", "--json"], stdout=subprocess.PIPE, check=True).stdout.strip() == b"{}"

    assert rebuild(return_state=True).message.startswith("Nothing was stale: every output is as in dvc.lock of")
    assert git("branch", "--list", "retrain/*", "--format=%(refname:short)") == branch

    # A new recipe of the commit; what does not read its values stays as it is.
    Path("other.yaml").write_text(Path("params.yaml").read_text().replace("4096", "2048"))
    commit("recipe")
    assert rebuild(recipe="other.yaml", return_state=True).message.startswith("1 of 4 stages ran.")
    assert "| evaluate | run |" in artifact(prefect, "rebuild")
    assert "| params.yaml: engine modified |" in artifact(prefect, "rebuild")


@pytest.mark.slow
def test_bad_data_ends_what_needs_it_and_is_not_tried_again(prefect: str) -> None:
    Path("data/sources/source.txt").write_text("bad\n")
    with pytest.raises(StageFailed, match="'curate' failed"):
        rebuild()
    (kept,) = [one for one in Path(".stillhouse/workspaces").iterdir() if one.is_dir()]
    assert (kept / ".stillhouse/refused/rows.txt").read_text() == "bad\n"
    run = latest_run(prefect)
    assert run["state_type"] == "FAILED"
    assert tasks_of(prefect, run) == {
        "curate": "FAILED",
        "adapt@retrieval": "PENDING",
        "adapt@clustering": "PENDING",
        "evaluate": "PENDING",
    }
    assert "| evaluate | not reached |" in artifact(prefect, "rebuild")


@pytest.mark.slow
def test_what_cannot_be_pushed_is_refused_before_any_stage_runs(prefect: str, project: Path) -> None:
    with pytest.raises(ValueError, match="push: DVC has no default remote"):
        rebuild(push=True)
    assert tasks_of(prefect, latest_run(prefect)) == {}
    remote = f"['remote \"store\"']\n    url = {project.parent}/store\n[core]\n    remote = store\n"
    Path(".dvc/config").write_text(remote)
    git("remote", "add", "origin", str(project.parent / "nowhere"))
    with pytest.raises(ValueError, match="push: git's `origin` takes no branch from here"):
        rebuild(push=True)
    assert tasks_of(prefect, latest_run(prefect)) == {}
    git("init", "--quiet", "--bare", str(project.parent / "nowhere"))
    assert "stages ran" in rebuild(push=True, return_state=True).message
    (branch,) = git("branch", "--list", "retrain/*", "--format=%(refname:short)").splitlines()
    assert git("ls-remote", "--heads", "origin").split()[1:] == [f"refs/heads/{branch}"]
    assert list((project.parent / "store").rglob("*.dir"))


@pytest.mark.slow
def test_a_device_whose_memory_is_full_gets_smaller_pieces_of_a_recipe_that_says_so(
    prefect: str, project: Path
) -> None:
    """And the version that comes of it goes to its sign-off."""
    flow = made(f"{prefect}/flows/", {"name": "release"})["id"]
    deployment = made(f"{prefect}/deployments/", {"name": "sign-off", "flow_id": flow})["id"]
    Path("clustering.sh").write_text(
        """grep -q 4096 params.yaml || exit 0
echo '{"chain": [["torch.OutOfMemoryError"]], "raised_in": "torch"}' > $STILLHOUSE_FAILURES/one.json
exit 1
"""
    )
    commit("script")
    assert "stages ran" in rebuild(release=True, return_state=True).message
    assert "again with engine.micro_batch_tokens 2048" in logs_of(prefect, latest_run(prefect))
    (branch,) = git("branch", "--list", "retrain/*", "--format=%(refname:short)").splitlines()
    assert "micro_batch_tokens: 2048}  # kept" in git("show", f"{branch}:params.yaml")
    (asked,) = httpx.post(f"{prefect}/flow_runs/filter", json={"deployments": {"id": {"any_": [deployment]}}}).json()
    assert asked["parameters"]["version"] == 3
    assert Path(asked["parameters"]["folder"]).parent == project / ".stillhouse/workspaces"
    assert (Path(asked["parameters"]["folder"]) / "data/promoted/version.json").is_file()


@pytest.mark.slow
def test_rebuilds_and_a_repro_by_hand_go_on_side_by_side(api: str, project: Path) -> None:
    """Of two rebuilds one holds the device and the other waits for it; a person needs neither."""
    ours = [started(api, "--devices", "3") for _ in range(2)]
    by_hand = subprocess.Popen([*DVC, "--wait-for-lock", "repro", "--quiet"])
    outputs = [finished(one) for one in ours]
    assert [one.returncode for one in ours] == [0, 0], "\n".join(outputs)
    assert by_hand.wait(FLOW_SECONDS) == 0
    assert Path("data/evaluated/figures.json").is_file()
    assert len(git("branch", "--list", "retrain/*").splitlines()) == 2
    assert all("devices 3" in one or "Stage 'adapt@retrieval' is cached" in one for one in outputs)


@pytest.mark.slow
def test_a_cancel_ends_the_stage_and_its_children(api: str, project: Path) -> None:
    Path("retrieval.sh").write_text(f"echo $$ > {project}/pid.part; mv {project}/pid.part {project}/pid; sleep 600\n")
    commit("script")
    process = started(api)
    deadline = time.monotonic() + FLOW_SECONDS
    while not Path("pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child = int(Path("pid").read_text())
    os.kill(process.pid, signal.SIGTERM)
    assert "'adapt@retrieval' - Finished in state Cancelled" in finished(process)
    assert process.returncode != 0
    # Gone, or waiting for a parent that does not look after it, as process 1 of a container may not.
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_the_flow_imports_nothing_heavy() -> None:
    source = "import sys, flows.rebuild; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
