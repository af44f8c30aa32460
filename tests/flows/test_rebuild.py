"""The rebuild flow on a real Prefect server and a small DVC project whose stages are shell commands."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.rebuild import StageResult, page, stage_environment

ROOT = Path(__file__).resolve().parents[2]
SERVER_SECONDS = 120
FLOW_SECONDS = 120

# Two adapters from one matrix, a stage that a word in its source refuses, and one that lasts.
PIPELINE = """\
stages:
  curate:
    cmd: >-
      mkdir -p data .stillhouse/refused && cp source.txt data/curated.txt && echo build $STILLHOUSE_BUILD &&
      cp source.txt .stillhouse/refused/rows.txt && grep good source.txt
    deps: [source.txt]
    outs: [data/curated.txt]
  adapt:
    matrix:
      task: [retrieval, clustering]
    cmd: cp data/curated.txt data/${item.task}.txt
    deps: [data/curated.txt]
    outs: ['data/${item.task}.txt']
  evaluate:
    cmd: sh -c 'echo $$ > group.txt && sleep $(cat pause.txt)' && cp pause.txt data/evaluated.txt
    deps: [data/retrieval.txt, pause.txt]
    outs: [data/evaluated.txt]
"""
# The flow must check the recipe by the project's contract; here that is one key.
PARAMS = """\
from pathlib import Path
def read():
    if "name:" not in Path("params.yaml").read_text():
        raise ValueError("params.yaml: name: missing")
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server with its own home and database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    home = tmp_path_factory.mktemp("prefect")
    environment = {**os.environ, "PREFECT_HOME": str(home)}
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}/api"
        wait_until_up(f"{address}/health", server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if httpx.get(address).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(f"{address} did not answer within {SERVER_SECONDS} s")


@pytest.fixture
def project(tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    files = {
        "dvc.yaml": PIPELINE,
        "stages/params.py": PARAMS,
        "stages/__init__.py": "",
        "params.yaml": "name: tiny",
    }
    for name, text in (files | {"source.txt": "good\n", "pause.txt": "0\n"}).items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    return tmp_path


def start(*arguments: str) -> subprocess.Popen[str]:
    """`python -m flows.rebuild` in the project."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.rebuild", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """The flow's output, once it has ended; nothing of it is left behind when it does not end."""
    try:
        return process.communicate(timeout=FLOW_SECONDS)[0]
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


def latest_run(api: str) -> dict[str, Any]:
    runs = httpx.post(f"{api}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}).json()
    run: dict[str, Any] = runs[0]
    return run


def tasks_of(api: str, run: dict[str, Any]) -> list[tuple[str, str]]:
    body = {"flow_runs": {"id": {"any_": [run["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found = httpx.post(f"{api}/task_runs/filter", json=body).json()
    return [(task["name"], task["state_type"]) for task in found]


def latest_page(api: str) -> str:
    body = {"artifacts": {"key": {"any_": ["rebuild"]}}}
    artifact = httpx.post(f"{api}/artifacts/latest/filter", json=body).json()[0]
    return str(artifact["data"])


def log_of(api: str, run: dict[str, Any]) -> str:
    body = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
    return "\n".join(line["message"] for line in httpx.post(f"{api}/logs/filter", json=body).json())


def outcomes(api: str) -> list[str]:
    """The second column of the latest page's table."""
    return [line.split(" | ")[1] for line in latest_page(api).splitlines()[4:]]


def test_a_rebuild_runs_what_is_stale_and_keeps_good_outputs_when_input_is_refused(project: Path, api: str) -> None:
    Path("source.txt").write_text("bad\n")
    refused = start()
    assert "There were no earlier outputs of this stage to put back." in finish(refused)
    assert refused.returncode == 1

    Path("source.txt").write_text("good\n")
    first = start()
    assert "Finished in state Completed" in finish(first)
    run = latest_run(api)
    stages = ["curate", "adapt@retrieval", "adapt@clustering", "evaluate"]
    assert tasks_of(api, run) == [(stage, "COMPLETED") for stage in stages]
    assert f"build prefect-{run['id']}" in log_of(api, run)
    assert outcomes(api) == ["run"] * 4

    Path("pause.txt").write_text("0.1\n")
    assert "Finished in state Completed" in finish(start())
    assert outcomes(api) == ["cached", "cached", "cached", "run"]

    Path("source.txt").write_text("bad again\n")
    refused = start()
    output = finish(refused)
    assert refused.returncode == 1
    assert Path("data/curated.txt").read_text() == "good\n"
    assert "Its last good outputs are back in place." in output
    assert "are in .stillhouse/refused/" in output
    assert "failed to reproduce 'curate'" in output
    run = latest_run(api)
    assert run["state_type"] == "FAILED"
    assert tasks_of(api, run) == [("curate", "FAILED")]
    assert "| curate | failed |" in latest_page(api)


def test_a_wrong_recipe_ends_before_any_stage(project: Path, api: str) -> None:
    Path("params.yaml").write_text("nmae: tiny")
    process = start()
    assert "params.yaml: name: missing" in finish(process)
    assert process.returncode == 1
    assert tasks_of(api, latest_run(api)) == []


def test_a_cancel_ends_the_stage_and_its_children(project: Path, api: str) -> None:
    Path("pause.txt").write_text("600\n")
    process = start()
    deadline = time.monotonic() + FLOW_SECONDS
    while not Path("group.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child = int(Path("group.txt").read_text())
    os.kill(process.pid, signal.SIGTERM)
    finish(process)
    assert process.returncode != 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_the_page_shows_the_gates_of_a_finished_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/promoted").mkdir(parents=True)
    Path("data/promoted/version.json").write_text(
        '{"name": "tiny", "version": "3", "aliases": ["challenger"], "validation_status": "refused",'
        ' "gates": [{"metric": "retention", "figure": 0.5, "limit": ">= 0.85", "verdict": "refused"}]}'
    )
    done = [StageResult("curate", "cached", 0.52)]
    assert page(done).splitlines()[4:] == [
        "| curate | cached | 0.5 |",
        "",
        "## tiny version 3: refused (challenger)",
        "",
        "| gate | figure | limit | verdict |",
        "| --- | ---: | --- | --- |",
        "| retention | 0.5000 | >= 0.85 | refused |",
    ]
    assert "retention" not in page([*done, StageResult("embed", "failed", 0.0)])


def test_a_stage_finds_this_interpreter_first() -> None:
    environment = stage_environment("one")
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["STILLHOUSE_BUILD"] == "one"


def test_the_flow_imports_nothing_heavy() -> None:
    source = "import sys, flows.rebuild; print(sorted({'torch', 'mlflow', 'pandas', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
