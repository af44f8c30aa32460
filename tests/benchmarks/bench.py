"""`make bench`: the figures of this machine, printed as a table and written to bench.json.

A whole build of the default recipe in a fresh checkout (time, peak memory of all its processes), a build that has
nothing to do, and the quality it reached; the same through Prefect, and whether it made the same bytes; embedding, a
distillation step and a contrastive step beside Sentence Transformers, and each format of a release beside torch, in
turns in the same run, on the same texts; builds from a person's own table and folder; curation of 1 and 4 million rows;
the teacher's vectors: a million kept, 1 % more, two Ray workers; questions of a model, kept and dropped; languages that
the teacher does not know.
"""

import argparse
import json
import os
import platform
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.build import whole_build
from tests.benchmarks.cross_lingual import cross_lingual_figures
from tests.benchmarks.curation import curation_figures
from tests.benchmarks.flow import flow_overhead
from tests.benchmarks.measure import Figure, use_all_cores
from tests.benchmarks.own import own_figures
from tests.benchmarks.questions import question_figures
from tests.checkouts import ROOT, checkout

OUTPUT = ROOT / "bench.json"
# Pairs of embedding and distillation, rows of the contrastive step, and pairs that keep a GPU busy for a second.
PAIRS, ROWS, ROUNDS = 600, 1024, 3
GPU_PAIRS = 2400


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench", description=__doc__)
    parser.add_argument("--skip-build", action="store_true", help="only the speeds, which take some minutes")
    parser.add_argument("--gpu", action="store_true", help="a GPU's figures instead of the CPU's speeds")
    arguments = parser.parse_args()
    figures = gpu_figures() if arguments.gpu else speeds() | curation_figures() | vectors() | question_figures()
    if not arguments.skip_build:
        with tempfile.TemporaryDirectory(prefix="stillhouse-bench-") as folder:
            figures |= builds(Path(folder)) | own_figures() | cross_lingual_figures()
    OUTPUT.write_text(json.dumps({name: asdict(figure) for name, figure in figures.items()}, indent=2) + "\n")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    )
    for name, figure in figures.items():
        print(line(name, figure))


def line(name: str, figure: Figure) -> str:
    """A row of the table."""
    ratio = f"{figure.ratio:.2f} x {figure.peer}" if figure.ratio else ""
    return f"{name:38} {figure.value:12.4g} {figure.unit:14} {figure.target or '':12} {ratio}".rstrip()


def builds(folder: Path) -> dict[str, Figure]:
    """The default recipe twice from nothing, by DVC alone and through Prefect."""
    plain, through_prefect = (checkout(folder / name) for name in ("plain", "flow"))
    figures = whole_build(plain)
    return figures | flow_overhead(through_prefect, figures["build_seconds"].value, plain)


def speeds() -> dict[str, Figure]:
    """What is measured beside Sentence Transformers."""
    from tests.benchmarks.contrastive import contrastive_memory, contrastive_speed
    from tests.benchmarks.distillation import distillation_speed
    from tests.benchmarks.embedding import embedding_speed
    from tests.benchmarks.formats import format_speed
    from tests.benchmarks.students import eurobert, rotary
    from tests.benchmarks.texts import pairs

    use_all_cores()
    few = pairs(PAIRS)
    texts = [query for query, _ in few] + [document for _, document in few]
    figures, vectors = embedding_speed(texts, ROUNDS)
    figures |= distillation_speed("distill_step", eurobert, few, vectors, ROUNDS)
    figures |= distillation_speed("default_step", rotary, few, vectors, ROUNDS)
    figures |= format_speed(rotary, texts, ROUNDS)
    figures |= contrastive_speed(eurobert, pairs(ROWS), ROUNDS)
    return figures | contrastive_memory()


def vectors() -> dict[str, Figure]:
    """What the teacher's vectors cost: to keep, to add to, to make on several processes."""
    from tests.benchmarks.increment import embed_increment
    from tests.benchmarks.store import store_scale
    from tests.benchmarks.texts import pairs
    from tests.benchmarks.workers import ray_scaling

    some = pairs(PAIRS * 2)
    return store_scale() | embed_increment(some) | ray_scaling([text for pair in some for text in pair])


def gpu_figures() -> dict[str, Figure]:
    """Figures of the first GPU.

    Raises:
        SystemExit: there is none.
    """
    import torch

    from tests.benchmarks.gpu import gpu_speed
    from tests.benchmarks.texts import pairs

    if not torch.cuda.is_available():
        raise SystemExit("error: --gpu measures a GPU and there is none here")
    return gpu_speed([text for pair in pairs(GPU_PAIRS) for text in pair], torch.device("cuda"))


if __name__ == "__main__":
    main()
