"""A whole build of the default recipe in a fresh folder, then one that has nothing to do."""

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
COPIED = ("stages", "dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config", "data/sources/README.md")


def whole_build(folder: Path) -> dict[str, Figure]:
    """Build the default recipe from nothing in `folder`, then again with nothing to do."""
    for name in COPIED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, target, ignore=ignored) if (ROOT / name).is_dir() else shutil.copy(
            ROOT / name, target
        )
    with (folder / ".dvc/config").open("a", encoding="utf-8") as config:
        config.write("    no_scm = true\n")
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "STILLHOUSE_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    started = time.perf_counter()
    process = psutil.Popen(DVC, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
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
