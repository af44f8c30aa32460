"""Cost of 1 % more texts in the embed stage with the default teacher, as a whole process each time."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.recipe.paths import CURATED, EMBEDDED
from stages.teachers.vector_store import VectorStore
from tests.benchmarks.measure import Figure
from tests.checkouts import ROOT

STAGE = """
from stages.embed import embed
from stages.recipe.recipe import load

embed(load())
"""
# Seconds that every run takes to start Python and to load torch and the teacher.
FIXED_SECONDS = 10


def embed_increment(pairs: Sequence[tuple[str, str]]) -> dict[str, Figure]:
    """Embed 99 % of some pairs' texts, then all of them, and compare the times of both runs."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-increment-") as name:
        folder = Path(name)
        write_recipe(folder)
        seconds, rows = [], []
        for part in (pairs[: len(pairs) * 99 // 100], pairs):
            write_pairs(folder / CURATED, part)
            seconds.append(run_stage(folder))
            rows.append(len(VectorStore(folder / EMBEDDED)))
    return {
        "embed_increment_share": Figure(max(0.0, seconds[1] - FIXED_SECONDS) / seconds[0], "", target="<= 0.03"),
        "embed_increment_embedded": Figure(1 - rows[0] / rows[1], ""),
        "embed_first_seconds": Figure(seconds[0], "s"),
        "embed_again_seconds": Figure(seconds[1], "s"),
    }


def write_recipe(folder: Path) -> None:
    """Write the default recipe without a limit on the share of texts that are cut."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["embed"]["max_truncated_share"] = 1.0
    YAML(typ="safe").dump(values, folder / "params.yaml")


def write_pairs(curated: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Write curated pairs of one source, and empty tables of the other kinds."""
    origin = {"entity": "", "source": "docstrings", "language": "en", "license": "MIT"}
    rows = [{"id": str(n), "query": query, "document": document, **origin} for n, (query, document) in enumerate(pairs)]
    for kind, schema in SCHEMAS.items():
        for split in SPLITS:
            of_split = rows if (kind, split) == ("pairs", "train") else []
            write_table(curated / kind / f"{split}.parquet", of_split, schema)


def run_stage(folder: Path) -> float:
    """Measure the seconds of the embed stage as a process without MLflow."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", STAGE], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return time.perf_counter() - started
