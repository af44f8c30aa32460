"""A real Prefect server, and a small project under git and DVC whose stages are shell commands."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import prefect_server

ROOT = Path(__file__).resolve().parents[2]

# A stage that a word in its source refuses, two adapters that do what their scripts say, and one that reads both.
PIPELINE = """\
stages:
  curate:
    cmd: >-
      mkdir -p data .stillhouse/refused && cp data/sources/source.txt data/curated.txt &&
      echo build $STILLHOUSE_BUILD && cp data/curated.txt .stillhouse/refused/rows.txt && grep good data/curated.txt
    deps: [data/sources]
    outs: [data/curated.txt]
    meta: {slot: cpu-heavy}
  adapt:
    foreach:
      retrieval: {}
      clustering: {}
    do:
      cmd: sh ${key}.sh && echo devices $CUDA_VISIBLE_DEVICES && cp data/curated.txt data/${key}.txt
      deps: [data/curated.txt, '${key}.sh']
      outs: ['data/${key}.txt']
      meta: {slot: gpu, devices: engine.processes}
  evaluate:
    cmd: mkdir -p data/evaluated data/promoted && cp figures.json data/evaluated && cp version.json data/promoted
    params: [engine]
    deps: [data/retrieval.txt, data/clustering.txt, figures.json, version.json]
    outs: [data/evaluated, data/promoted]
"""
# The flow has the commit's own reader check a recipe; here its contract is one key.
READER = """\
import sys
from pathlib import Path
if "name:" not in Path(sys.argv[1]).read_text():
    sys.exit(f"error: {sys.argv[1]}: name: missing")
"""
RECIPE = """\
name: tiny
engine: {processes: 1, micro_batch_tokens: 4096}  # kept
promote: {registered_model: tiny}
"""
VERSION = (
    '{"name": "tiny", "version": "3", "aliases": ["challenger"], "validation_status": "passed", "run_id": "abc",'
    ' "gates": [{"metric": "retention", "figure": 0.9, "limit": ">= 0.85", "verdict": "passed"}]}'
)
FILES = {
    "dvc.yaml": PIPELINE,
    "stages/__init__.py": "",
    "stages/check.py": READER,
    "params.yaml": RECIPE,
    "retrieval.sh": "true\n",
    "clustering.sh": "true\n",
    "figures.json": '{"summary": {"retention": 0.9}}',
    "version.json": VERSION,
    ".gitignore": "/data/*\n/.stillhouse/\n/mlruns\n/mlflow.db\n__pycache__\n",
    ".dvcignore": ".stillhouse\nmlruns\n",
    "data/sources/source.txt": "good\n",
}


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server with its own home and database."""
    with prefect_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, committed and not built; to copy."""
    home = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    # The flow runs in this folder, whose `stages` comes before the project's own.
    shutil.copytree(ROOT / "stages/recipe", home / "stages/recipe", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=home, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=home, check=True)
    commit("project", home)
    return home


@pytest.fixture
def project(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, as working folder."""
    home = shutil.copytree(committed, tmp_path / "project")
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


def made(address: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a Prefect server made of a request; a busy one says for a while that it cannot."""
    deadline = time.monotonic() + 60
    while (answer := httpx.post(address, json=body)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def git(*arguments: str, folder: Path | None = None) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def commit(message: str, folder: Path | None = None) -> None:
    git("add", "--all", folder=folder)
    git("commit", "--quiet", "--message", message, folder=folder)
