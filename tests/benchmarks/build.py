"""A whole build of the default recipe in a fresh checkout, then one that has nothing to do."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.benchmarks.measure import Figure, most_resident

ROOT = Path(__file__).resolve().parents[2]
DVC = (sys.executable, "-m", "dvc", "repro")
COPIED = (
    *("stages", "flows", "dvc.yaml", "params.yaml"),
    *(".dvcignore", ".gitignore", ".dvc/.gitignore", ".dvc/config", "data/sources/README.md"),
)


def checkout(folder: Path) -> Path:
    """A fresh checkout, under git, of the project as it stands here; without dvc.lock, so everything is stale."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "bench"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def environment(**more: str) -> dict[str, str]:
    """This process's, with this interpreter first in the path, without settings of MLflow's and the stages'."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "STILLHOUSE_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **more}


def whole_build(folder: Path) -> dict[str, Figure]:
    """Build the default recipe from nothing in a checkout, then again with nothing to do."""
    seconds, peak = _run_measured(folder)
    noop = min(_run_measured(folder)[0] for _ in range(3))
    summary = json.loads((folder / "data/evaluated/metrics.json").read_text(encoding="utf-8"))["summary"]
    return {
        "build_seconds": Figure(seconds, "s", target="<= 720"),
        "build_peak_bytes": Figure(peak, "bytes", target="< 6 GiB"),
        "noop_repro_seconds": Figure(noop, "s", target="< 1.5"),
    } | {name: Figure(value, "") for name, value in summary.items()}


def _run_measured(folder: Path) -> tuple[float, float]:
    """Seconds of a `dvc repro` and the most memory (resident, bytes) that it and its children held together."""
    started = time.perf_counter()
    process = psutil.Popen(DVC, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    ended: list[float] = []

    def wait() -> None:
        process.wait()
        ended.append(time.perf_counter())

    peak = most_resident(wait, lambda: _family(process), every=0.2)
    if process.returncode:
        raise RuntimeError(f"dvc repro ended with {process.returncode} in {folder}")
    return ended[0] - started, float(peak)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
