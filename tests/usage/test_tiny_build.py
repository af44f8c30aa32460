"""`stillhouse search` and `stillhouse embed` on a real build, as processes: what they give is the release's own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from stages.corpus.tables import read_table
from tests.checkouts import copy_of, environment, run

pytestmark = pytest.mark.slow

STILLHOUSE = (sys.executable, "-m", "flows.cli")
NAME = "stillhouse-tiny"
ROWS = 6000  # three parts


@pytest.fixture(scope="module")
def built(tiny_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny build, with its file of texts to embed."""
    folder = copy_of(tiny_build, tmp_path_factory.mktemp("usage") / "built")
    shutil.copytree(Path(__file__).parents[2] / "flows", folder / "flows")
    texts = read_table(folder / "data/curated/pairs/train.parquet")["document"].to_pylist()
    lines = [f"{number} {texts[number % len(texts)]}"[:80] for number in range(ROWS)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def vectors(file: Path) -> np.ndarray:
    return np.array(pq.read_table(file)["vector"].to_pylist(), dtype=np.float32)


def test_embedded_vectors_are_those_of_the_release_after_a_kill_too(built: Path) -> None:
    command = (*STILLHOUSE, "embed", "texts.txt", "--out", "vectors.parquet", "--task", "clustering")
    killed = subprocess.Popen(command, cwd=built, env=environment(DO_NOT_TRACK="1"), start_new_session=True)
    first, deadline = built / "vectors.parquet.parts/000000.parquet", time.monotonic() + 300
    while not first.exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (built / "vectors.parquet").exists()
    said = run(built, *command).stdout
    assert f"wrote vectors.parquet: {ROWS} rows, {ROWS} with a vector (" in said
    assert "by an earlier run" in said
    model = SentenceTransformer(str(built / "data/quantized" / NAME / "merged/clustering"))
    texts = (built / "texts.txt").read_text(encoding="utf-8").splitlines()
    expected = model.encode(texts, prompt_name="document")
    np.testing.assert_allclose(vectors(built / "vectors.parquet"), expected, atol=1e-5)


def test_search_finds_the_planted_document_by_each_and_says_by_which_release(built: Path) -> None:
    row = read_table(built / "data/curated/pairs/test.parquet", ["wikipedia"]).slice(0, 1).to_pylist()[0]
    beginning = " ".join(row["document"].split()[:3])
    shown = run(built, *STILLHOUSE, "search", row["document"], "--top", "1", "--source", "wikipedia").stdout
    plain = " ".join(shown.split())
    assert f"{NAME} version 1, the champion" in plain
    assert shown.count(beginning) == 3, "the release, the teacher and BM25"
    assert "the teacher is left out" not in plain
