"""A whole build of the default recipe in a fresh checkout, then one that has nothing to do."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.benchmarks.measure import Figure, most_resident
from tests.checkouts import environment

DVC = (sys.executable, "-m", "dvc", "repro")


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
