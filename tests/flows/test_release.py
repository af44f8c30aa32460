"""The release flow on a real Prefect server and a real MLflow registry: people answer by form, by tags, by command."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.release import RegistryError, history, history_table, page, rollback, sign_off
from stages.registry import store
from stages.registry.ledger import Ledger, make_registered_model
from tests.conftest import register_version

ROOT = Path(__file__).resolve().parents[2]
MODEL = "stillhouse-tiny"
SECONDS = 120
YES = {"decision": "approve", "name": "Ada", "reason": "reads well"}


@pytest.fixture
def client(tmp_path: Path, api: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A built checkout with version 1 registered, which two people have to sign off."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(empty_store, "mlflow.db")
    Path("dvc.lock").write_text("stages: {evaluate: {cmd: e}}")
    recipe = (ROOT / "tests/recipes/tiny.yaml").read_text(encoding="utf-8")
    recipe = recipe.replace("signoff: automatic", "signoff: human").replace("approvals: 1", "approvals: 2")
    Path("params.yaml").write_text(recipe)
    opened = store.registry()
    make_registered_model(opened, MODEL)
    register(opened, "one")
    yield opened
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri("")


def register(client: Any, weights: str) -> None:
    """Another version, and data/promoted."""
    number = register_version(client, MODEL, weights)
    Path("data/promoted").mkdir(exist_ok=True)
    Path("data/promoted/version.json").write_text(f'{{"version": "{number}"}}')


def start(*arguments: str) -> "subprocess.Popen[str]":
    """`stillhouse` in the checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    try:
        return process.communicate(timeout=SECONDS)[0]
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


def paused_run(api: str, process: "subprocess.Popen[str]", pauses: int) -> str:
    """Id of the flow run that waits, once it has paused so often."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        body = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}, "sort": "START_TIME_DESC", "limit": 1}
        runs = httpx.post(f"{api}/flow_runs/filter", json=body).json()
        if runs and len(runs[0]["empirical_policy"]["pause_keys"]) == pauses:
            return str(runs[0]["id"])
        time.sleep(0.2)
    raise AssertionError(f"no paused run: {finish(process)}")


def answer(api: str, run_id: str, said: dict[str, str]) -> dict[str, Any]:
    """Fill in the form as Prefect's UI does, once its fields are there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        reply: dict[str, Any] = httpx.post(f"{api}/flow_runs/{run_id}/resume", json={"run_input": said}).json()
        if "status" in reply and "schema not found" not in str(reply):
            return reply  # else the fields are not there yet, or the server's database is busy
        time.sleep(0.2)
    raise AssertionError(reply)


@pytest.mark.slow
def test_two_people_sign_off_by_form_and_by_tags(client: Any, api: str) -> None:
    process = start("sign-off")
    run_id = paused_run(api, process, pauses=1)
    assert answer(api, run_id, {**YES, "name": "  "})["status"] == "REJECT"
    assert answer(api, run_id, YES)["status"] == "ACCEPT"
    paused_run(api, process, pauses=2)
    assert store.champion_of(client, MODEL) is None
    for tag, value in (("signoff", "approve"), ("signoff_by", "Bob"), ("signoff_reason", "so it does")):
        client.set_model_version_tag(MODEL, "1", tag, value)
    output = finish(process)
    assert process.returncode == 0, output
    assert "champion" in output.splitlines()[-1]
    assert store.champion_number(client, MODEL) == "1"
    assert "signoff" not in client.get_model_version(MODEL, "1").tags
    entries = Ledger(client, MODEL).entries
    assert [(one.action, one.who, one.why, one.how) for one in entries] == [
        ("approved", "Ada", "reads well", "form"),
        ("promoted", "Bob", "so it does", "tags"),
    ]
    artifacts = {"artifacts": {"key": {"any_": ["release"]}}}
    shown = httpx.post(f"{api}/artifacts/latest/filter", json=artifacts).json()[0]["data"]
    assert f"## {MODEL} version 1: passed" in shown and "| gate |" in shown


@pytest.mark.slow
def test_decisions_by_command_and_the_way_back(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("approvals: 2", "approvals: 1"))

    def printed() -> list[str]:
        return capsys.readouterr().out.splitlines()

    with pytest.raises(ValueError, match="a decision needs --name and --reason"):
        sign_off(approve=True, name="Ada", reason=" ")
    with pytest.raises(ValueError, match="expected one of them or none"):
        sign_off(approve=True, refuse=True, name="Ada", reason="good")
    sign_off(approve=True, name="Ada", reason="good")
    assert printed() == ["champion"]
    register(client, "two")
    sign_off(approve=True, name="Bob", reason="better")
    assert printed() == ["champion"]
    rollback(name="Eve", reason="slow")
    assert printed() == [f"{MODEL}: champion was version 2, is version 1"]
    Path("data/quantized/tiny/merged/retrieval/weights").write_text("twa")
    with pytest.raises(RegistryError, match="differs from what was registered"):
        sign_off(version=2, approve=True, name="Ada", reason="again")
    sign_off(version=2, refuse=True, name="Ada", reason="no")
    assert printed() == ["refused"]
    history()
    lines = printed()
    assert [line.split()[1:3] for line in lines[1:-1]] == [
        *(["1", "promoted"], ["2", "promoted"], ["1", "rolled"], ["2", "refused"])
    ]
    assert "2 -> 1" in lines[-3] and lines[-1] == f"{MODEL}: champion is 1"


@pytest.mark.slow
def test_a_sign_off_that_nobody_gives_in_time_changes_nothing_and_may_be_given_later(client: Any) -> None:
    recipe = Path("params.yaml").read_text(encoding="utf-8").replace("approvals: 2", "approvals: 1")
    Path("params.yaml").write_text(recipe.replace("signoff_hours: 168", "signoff_hours: 0.001"))  # 3.6 s
    process = start("sign-off")
    output = finish(process)
    assert process.returncode == 1
    assert f"error: nobody signed {MODEL} version 1 off within 0.001 h (signoff_hours)" in output
    assert store.champion_of(client, MODEL) is None
    assert Ledger(client, MODEL).entries == []
    process = start("sign-off", "--approve", "--name", "Ada", "--reason", "late, and good")
    assert finish(process).splitlines()[-1] == "champion"


@pytest.mark.slow
def test_nobody_is_asked_about_what_cannot_be_signed_off(client: Any) -> None:
    Path("dvc.lock").write_text("stages: {evaluate: {cmd: another}}")
    process = start("sign-off")
    output = finish(process)
    assert process.returncode != 0
    assert "version 1 cannot be signed off: dvc.lock in this checkout is not the one it was built with" in output
    assert Ledger(client, MODEL).entries == []


def test_what_people_read() -> None:
    state = {
        "name": MODEL,
        "version": "2",
        "champion": "1",
        "validation_status": "refused",
        "gates": "| gate |",
        "objections": ["its gates refuse it"],
        "approved_by": ["ada"],
    }
    assert page(state).splitlines() == [
        f"## {MODEL} version 2: refused",
        "",
        "The champion is version 1.",
        "",
        "| gate |",
        "",
        "- its gates refuse it",
        "Approved by ada.",
    ]
    entry = {"time": "t", "version": "2", "action": "promoted", "champion_from": None, "champion_to": "2"}
    assert history_table([entry | {"who": "Ada", "how": "form", "why": "good"}]).splitlines()[1].split() == [
        *("t", "2", "promoted", "none", "->", "2", "Ada", "(form)", "good")
    ]


def test_the_flow_imports_nothing_of_the_training() -> None:
    source = "import sys, flows.release; print(sorted({'torch', 'transformers', 'stages.registry'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
