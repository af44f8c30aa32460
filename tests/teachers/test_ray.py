"""The embed stage on Ray Data: the bytes of one process, a killed worker, loopback alone, no Ray installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.embed import embed
from stages.recipe.paths import CURATED, EMBEDDED, VECTORS
from stages.recipe.recipe import read
from stages.teachers import embedding
from stages.teachers import ray as on_ray
from tests.conftest import cut_at
from tests.machines import SECONDS, first_machine, machine

ROOT = Path(__file__).resolve().parents[2]
# Embeds the working folder's rows, ten at a time.
EMBED = """
from stages.embed import embed
from stages.recipe.recipe import read
from stages.teachers import embedding

embedding.WORKING_SHARD_ROWS = 10
figures = embed(read())
"""
# The same, but kills the process that embeds at its first vectors, and lists the addresses on which Ray listens.
EMBED_AND_KILL = f"""
import json, signal
from pathlib import Path
import psutil
from stages.teachers.vector_store import VectorStore

add, seen = VectorStore.add, dict(killed=[], addresses=[])
def kill(self, keys, vectors):
    if not seen["killed"]:
        family = psutil.Process().children(recursive=True)
        connections = [connection for process in family for connection in process.net_connections()]
        seen["addresses"] = sorted({{item.laddr.ip for item in connections if item.status == psutil.CONN_LISTEN}})
        worker = next(item for item in family if "MapWorker" in item.name() + " ".join(item.cmdline()))
        worker.send_signal(signal.SIGKILL)
        seen["killed"].append(worker.pid)
    add(self, keys, vectors)
VectorStore.add = kill
{EMBED}
Path("seen.json").write_text(json.dumps(dict(figures=figures, **seen)))  # Ray writes to both streams
"""


@pytest.fixture
def project(short_recipe: dict[str, Any], backbones: dict[str, Path], sentences: list[str], tmp_path: Path) -> Path:
    """A working folder with a recipe and curated rows."""
    teacher = {"kind": "transformer", "path": str(backbones["bert"]), "pooling": "mean"}
    cut_at(short_recipe, 24)
    short_recipe["embed"] |= {"teacher": teacher, "batch_tokens": 64}
    short_recipe["engine"]["threads"] = 1
    write_recipe(tmp_path, short_recipe)
    origin = {"entity": "e", "language": "en", "license": "MIT", "source": "wikipedia-topics"}
    rows = [{"id": text, "text": text, "label": "a", **origin} for text in sentences]
    for kind, schema in SCHEMAS.items():
        for place, split in enumerate(SPLITS):
            part = rows[place::3] if kind == "labelled" else []
            write_table(tmp_path / CURATED / kind / f"{split}.parquet", part, schema)
    return tmp_path


def write_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    YAML(typ="safe").dump(recipe, folder / "params.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(script: str, folder: Path, **variables: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.fixture
def alone(project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project whose rows this process embedded."""
    folder = tmp_path_factory.mktemp("alone") / "project"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(embedding, "WORKING_SHARD_ROWS", 10)
    embed(read())
    return folder


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one_process_though_one_is_killed(
    project: Path, alone: Path, short_recipe: dict[str, Any]
) -> None:
    short_recipe["embed"]["ray"] = {"workers": 2, "gpus": 0}
    write_recipe(project, short_recipe)
    run(EMBED_AND_KILL, project)
    seen = json.loads((project / "seen.json").read_text())
    assert len(seen["killed"]) == 1
    assert set(seen["addresses"]) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "Ray is for this machine alone"
    assert seen["figures"] == {"texts": 200, "embedded": 200, "reused": 0}
    assert files(project / EMBEDDED) == files(alone / EMBEDDED)
    assert files(project / VECTORS) == files(alone / VECTORS)


@pytest.mark.slow
def test_two_machines_give_the_bytes_of_one_process(
    project: Path,
    alone: Path,
    short_recipe: dict[str, Any],
    backbones: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each machine has cores for one worker; the recipe names the model by its path in the working folder."""
    (project / "teacher").symlink_to(backbones["bert"])
    short_recipe["embed"]["teacher"]["path"] = "teacher"
    short_recipe["embed"]["ray"] = {"workers": 2, "gpus": 0}
    short_recipe["engine"]["threads"] = os.cpu_count()
    write_recipe(project, short_recipe)
    folder = tmp_path_factory.mktemp("machines")
    with first_machine(folder) as variables, machine(1, folder, variables):
        run(EMBED, project, **variables)
    assert files(project / EMBEDDED) == files(alone / EMBEDDED)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"install it \(pip install 'ray\[data\]~=2.60'\) or set embed.ray"):
        on_ray.start(2, 0)
