"""A whole build of the default recipe in a fresh checkout, one that has nothing to do, and its evaluation once more."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from stages.planning.measured import measured_seconds
from tests.benchmarks.measure import Figure, most_resident
from tests.benchmarks.measure import seconds as timed
from tests.checkouts import environment

DVC = (sys.executable, "-m", "dvc", "repro")
EVALUATE = (sys.executable, "-m", "stages.evaluate")


def whole_build(folder: Path) -> dict[str, Figure]:
    """Build the default recipe from nothing in a checkout, again with nothing to do, and evaluate it again."""
    seconds, peak = _run_measured(folder)
    noop = min(_run_measured(folder)[0] for _ in range(3))
    first = measured_seconds(folder / "data/lineage", f"sqlite:///{folder / 'mlflow.db'}")["evaluate"]
    again = timed(
        lambda: subprocess.run(EVALUATE, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    )
    summary = json.loads((folder / "data/evaluated/figures.json").read_text(encoding="utf-8"))["summary"]
    return {
        "build_seconds": Figure(seconds, "s", target="<= 720"),
        "build_peak_bytes": Figure(peak, "bytes", target="< 6 GiB"),
        "noop_repro_seconds": Figure(noop, "s", target="< 1.5"),
        "evaluate_seconds": Figure(first, "s", target="<= 180"),
        "evaluate_cached_seconds": Figure(again, "s", target="<= 20"),
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
