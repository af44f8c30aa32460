"""Fresh checkouts of the project as it stands here, to build in."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests/recipes/tiny.yaml"
DVC = (sys.executable, "-m", "dvc")
COPIED = (
    *("stages", "flows", "dvc.yaml", "params.yaml"),
    *(".dvcignore", ".gitignore", ".dvc/.gitignore", ".dvc/config", "data/sources/README.md"),
)
# How a recipe leaves a task out.
ABSENT: dict[str, dict[str, list[str]]] = {
    "retrieval": {"mixture": []},
    "text-matching": {"scored_sources": [], "pair_sources": []},
    "clustering": {"sources": []},
    "classification": {"sources": []},
}
LONG_SOURCES = {"needles", "speeches-whole", "encyclopedia", "cwe"}


def short_recipe() -> dict[str, Any]:
    """The tiny recipe without its long texts, their phase, and sources that are evaluated alone."""
    recipe: dict[str, Any] = YAML(typ="safe").load(TINY)
    recipe["curate"]["sources"] = [one for one in recipe["curate"]["sources"] if one["name"] not in LONG_SOURCES]
    recipe["embed"]["long"]["sources"] = []
    recipe["extend"]["mixture"], recipe["extend"]["training"]["steps"] = [], 0
    recipe["evaluate"]["long"] |= {"haystacks": None, "articles": None}
    recipe["evaluate"]["sources"]["unseen"] = []
    del recipe["promote"]["gates"]["unseen_over_champion"]
    return recipe


def chosen_tasks(recipe: dict[str, Any], *tasks: str) -> dict[str, Any]:
    """The recipe with these tasks alone: the others, and all that only they need, are left out."""
    sources = recipe["evaluate"]["sources"]
    for task in ABSENT.keys() - set(tasks):
        recipe["adapt"][task], sources[task] = ABSENT[task], []
    if "retrieval" not in tasks:
        recipe["mine"]["sources"], sources["unseen"] = [], []
    unneeded = {"scored"} if "text-matching" not in tasks else set()
    unneeded |= {"labelled"} if not {"clustering", "classification"} & set(tasks) else set()
    recipe["curate"]["sources"] = [one for one in recipe["curate"]["sources"] if one["kind"] not in unneeded]
    unmeasured = tuple(f"{task.replace('-', '_')}_" for task, names in sources.items() if not names)
    unmeasured += () if sources["retrieval"] else ("index_compatibility", "binary_retention", "int8_retention")
    gates = recipe["promote"]["gates"]
    recipe["promote"]["gates"] = {name: gate for name, gate in gates.items() if not name.startswith(unmeasured)}
    return recipe


def without_formats(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with a release of adapters and merged models alone."""
    recipe["quantize"]["formats"] = []
    recipe["promote"]["gates"].pop("int8_weights_cosine_min", None)
    return recipe


def checkout(folder: Path, recipe: Path | Mapping[str, Any] = ROOT / "params.yaml") -> Path:
    """A checkout under git with a recipe as its params.yaml; without dvc.lock, so everything is stale.

    Its commit has a fixed date: the same files give the same commit.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)
    if isinstance(recipe, Path):
        shutil.copy(recipe, folder / "params.yaml")
    else:
        yaml = YAML(typ="safe")
        yaml.default_flow_style = False  # DVC's overrides would write `{path: package:...}` without its quotes
        yaml.dump(dict(recipe), folder / "params.yaml")
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")
    git = ["git", "-c", "user.name=checkout", "-c", "user.email=checkout@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "checkout"]):
        subprocess.run([*git, *command], cwd=folder, env=environment(**dates), check=True)
    return folder


def small_checkout(folder: Path, changes: dict[str, object]) -> Path:
    """A checkout without git whose params.yaml is the tiny recipe, with values at dotted keys changed."""
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/sources").mkdir(parents=True)
    shutil.copy(ROOT / "data/sources/README.md", folder / "data/sources")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n", encoding="utf-8")
    shutil.copy(TINY, folder / "params.yaml")
    set_params(folder, changes)
    return folder


def set_params(folder: Path, changes: dict[str, object]) -> None:
    """Change values at dotted keys of a folder's recipe; its comments stay."""
    yaml = YAML()
    yaml.preserve_quotes = True
    recipe = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = recipe
        for parent in parents:
            section = section[parent]
        section[last] = value
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(recipe, stream)


def built_once(folder: Path) -> Path:
    """The tiny recipe, built in a folder by the first of several processes; the others wait for that build."""
    done = folder / ".stillhouse/built"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            run(small_checkout(folder, {}), *DVC, "repro")
            done.touch()
    return folder


def copy_of(built: Path, folder: Path) -> Path:
    """A build to change and to build on: DVC runs only what a change makes stale. Files in DVC's cache are shared."""
    cache = str(built / ".dvc/cache")

    def link(source: str, target: str) -> None:
        os.link(source, target) if source.startswith(cache) else shutil.copy2(source, target)

    shutil.copytree(built, folder, copy_function=link, ignore=shutil.ignore_patterns("checkpoints", "tmp"))
    return folder


def environment(**more: str) -> dict[str, str]:
    """This process's, with this interpreter first in the path, without settings of MLflow's and the stages'."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "STILLHOUSE_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **more}


def run(folder: Path, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """A command of the project there, with what it said.

    Raises:
        AssertionError: it failed, and `check`.
    """
    here = environment(DO_NOT_TRACK="1")
    done = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def locks_of_rebuilds(folder: Path) -> list[str]:
    """The dvc.lock of every branch that rebuilds of a checkout left."""
    branches = ["for-each-ref", "--format=%(refname)", "refs/heads/retrain/"]
    return [_git(folder, "show", f"{one}:dvc.lock") for one in _git(folder, *branches).split()]


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout
