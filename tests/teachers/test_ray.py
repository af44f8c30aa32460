"""The embed stage on Ray Data: the bytes of one process, a killed worker, loopback alone, no Ray at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.embed import embed
from stages.recipe.recipe import read
from stages.teachers import ray as on_ray
from tests.conftest import cut_at
from tests.machines import SECONDS, first_machine, machine

ROOT = Path(__file__).resolve().parents[2]
# Kills the process that embeds when the first vectors are there, and looks at what it and its family listen on.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import psutil
from stages import embed
from stages.recipe.recipe import load, read
from stages.teachers.vector_store import VectorStore

embed.WORKING_SHARD_ROWS = 10
add, seen = VectorStore.add, {"killed": [], "addresses": []}
def kill(self, keys, vectors):
    if not seen["killed"]:
        family = psutil.Process().children(recursive=True)
        seen["addresses"] = sorted({
            one.laddr.ip for process in family for one in process.net_connections() if one.status == psutil.CONN_LISTEN
        })
        worker = next(one for one in family if "MapWorker" in one.name() or "MapWorker" in " ".join(one.cmdline()))
        worker.send_signal(signal.SIGKILL)
        seen["killed"].append(worker.pid)
    add(self, keys, vectors)
VectorStore.add = kill
figures = embed.embed(load(), *(Path(name) for name in sys.argv[1:]))
Path("told.json").write_text(json.dumps({"figures": figures, **seen}))  # Ray writes to both streams
"""

# Embeds the project's rows.
ON_MACHINES = """
import sys
from pathlib import Path
from stages import embed
from stages.recipe.recipe import load, read
embed.WORKING_SHARD_ROWS = 10
embed.embed(load(), Path("curated"), Path(sys.argv[1]), Path("working-" + sys.argv[1]))
"""


@pytest.fixture
def project(short_recipe: dict[str, Any], backbones: dict[str, Path], sentences: list[str], tmp_path: Path) -> Path:
    """A folder with a recipe and curated rows."""
    teacher = {"kind": "transformer", "path": str(backbones["bert"]), "pooling": "mean"}
    cut_at(short_recipe, 24)
    short_recipe["embed"] |= {"teacher": teacher, "batch_tokens": 64}
    short_recipe["engine"]["threads"] = 1
    write_recipe(tmp_path, short_recipe)
    origin = {"entity": "e", "language": "en", "license": "MIT", "source": "wikipedia-topics"}
    rows = [{"id": text, "text": text, "label": "a", **origin} for text in sentences]
    for kind, schema in SCHEMAS.items():
        for place, split in enumerate(SPLITS):
            write_table(
                tmp_path / "curated" / kind / f"{split}.parquet", rows[place::3] if kind == "labelled" else [], schema
            )
    return tmp_path


def write_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    YAML(typ="safe").dump(recipe, folder / "params.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_workers_give_the_bytes_of_one_process_though_one_is_killed(
    project: Path, short_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.embed.WORKING_SHARD_ROWS", 10)
    alone = embed(read(project / "params.yaml"), project / "curated", project / "alone", project / "working")
    short_recipe["embed"]["ray"] = {"workers": 2, "gpus": 0}
    write_recipe(project, short_recipe)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, "curated", "together", "working-together"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads((project / "told.json").read_text())
    assert len(told["killed"]) == 1
    assert set(told["addresses"]) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "Ray is for this machine alone"
    assert told["figures"] == alone == {"texts": 200, "embedded": 200, "reused": 0}
    assert files(project / "together") == files(project / "alone")
    assert files(project / "working-together") == files(project / "working")


def test_two_machines_give_the_bytes_of_one_process(
    project: Path, short_recipe: dict[str, Any], backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A worker on each, as none has cores for both; a model named as it lies in the folder where the stage runs."""
    (project / "teacher").symlink_to(backbones["bert"])
    short_recipe["embed"]["teacher"]["path"] = "teacher"
    write_recipe(project, short_recipe)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ON_MACHINES]
    subprocess.run([*command, "alone"], cwd=project, env=environment, check=True, timeout=SECONDS)
    short_recipe["embed"]["ray"] = {"workers": 2, "gpus": 0}
    short_recipe["engine"]["threads"] = os.cpu_count()
    write_recipe(project, short_recipe)
    folder = tmp_path_factory.mktemp("machines")
    with first_machine(folder) as told, machine(1, folder, told):
        subprocess.run([*command, "together"], cwd=project, env=environment | told, check=True, timeout=SECONDS)
    assert files(project / "together") == files(project / "alone")


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"install it \(pip install 'ray\[data\]~=2.60'\) or set embed.ray"):
        on_ray.start(2, 0)
