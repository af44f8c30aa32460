"""The embed stage with a tiny teacher: what is asked for, kills, added rows, byte for byte."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages import params
from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.corpus.vectors import VectorStore
from stages.embed import embed, wanted_texts
from stages.modeling.encoder import EncoderSettings, load_encoder

ROOT = Path(__file__).resolve().parents[1]
ORIGIN = {"entity": "e", "language": "en", "license": "MIT"}
PROMPTS = {"query": "query : ", "document": "", "clustering": "document : "}


def write_curated(folder: Path, texts: list[str]) -> None:
    """Pairs of two sources, scored and labelled rows, in three splits, out of the texts."""
    rows: dict[str, list[dict[str, Any]]] = {"pairs": [], "scored": [], "labelled": []}
    for number, (left, right) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        row = {"id": str(number), **ORIGIN, "source": ("wikipedia", "wikipedia-descriptions")[number % 2]}
        rows["pairs"].append(row | {"query": left, "document": right})
        if number % 10 == 0:
            rows["scored"].append(row | {"source": "simlex", "text_a": left, "text_b": right, "score": 0.5})
            rows["labelled"].append(row | {"source": "wikipedia-topics", "text": right, "label": "a"})
    for kind, schema in SCHEMAS.items():
        for place, split in enumerate(SPLITS):
            write_table(folder / kind / f"{split}.parquet", rows[kind][place::3], schema)


@pytest.fixture
def project(recipe: dict[str, Any], backbones: dict[str, Path], sentences: list[str], tmp_path: Path) -> Path:
    """A folder with a recipe and curated rows."""
    recipe["embed"] |= {"teacher": str(backbones["bert"]), "max_tokens": 24, "batch_tokens": 64, "prompts": PROMPTS}
    recipe["threads"] = 1
    YAML(typ="safe").dump(recipe, tmp_path / "params.yaml")
    write_curated(tmp_path / "data/curated", sentences)
    return tmp_path


def run_embed(project: Path, working: str, output: str) -> dict[str, float]:
    recipe = params.read(project / "params.yaml")
    return embed(recipe, project / "data/curated", project / output, project / working)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_text_is_wanted_once_under_the_instructions_that_read_it(project: Path, sentences: list[str]) -> None:
    wanted = wanted_texts(params.read(project / "params.yaml"), project / "data/curated")
    queries, documents = sentences[::2], sentences[1::2]
    assert sorted(wanted["query"]) == sorted(queries)
    # Documents, both sides of scored pairs, and both sides of text matching's pairs: here every pair.
    assert set(wanted["document"]) == {*documents, *queries}
    assert set(wanted["clustering"]) == {*queries[::2], *documents[::2]}
    for texts in wanted.values():
        assert len(texts) == len(set(texts))


def test_stored_vectors_are_the_teachers(project: Path, backbones: dict[str, Path], sentences: list[str]) -> None:
    figures = run_embed(project, "working", "data/embedded")
    assert figures["texts"] == figures["embedded"]
    assert figures["reused"] == 0
    teacher = load_encoder(str(backbones["bert"]), EncoderSettings("mean", PROMPTS, 24))
    store = VectorStore(project / "data/embedded")
    assert len(store) == figures["texts"]
    sides = {"query": sentences[:20:2], "document": sentences[1:20:2], "clustering": sentences[:20:4]}
    for side, texts in sides.items():
        expected = teacher.encode(texts, side)
        np.testing.assert_allclose(store.texts(PROMPTS[side], texts), expected, atol=1e-3)
        assert np.abs(expected - teacher.encode(texts, "query" if side == "document" else "document")).max() > 0.01


def test_nothing_is_embedded_twice_and_rows_added_cost_only_themselves(project: Path, sentences: list[str]) -> None:
    curated = project / "data/curated"
    write_curated(curated, sentences[:120])
    first = run_embed(project, "working", "data/embedded")
    before = files(project / "data/embedded")
    again = run_embed(project, "working", "data/embedded")
    assert (again["embedded"], again["reused"]) == (0, first["texts"])
    assert files(project / "data/embedded") == before

    write_curated(curated, sentences)
    more = run_embed(project, "working", "data/embedded")
    assert more["reused"] == first["texts"]
    assert more["embedded"] == more["texts"] - first["texts"] > 0
    # Back to the first rows: the export holds this build's texts alone.
    write_curated(curated, sentences[:120])
    run_embed(project, "working", "data/embedded")
    assert files(project / "data/embedded") == before


def test_another_teacher_or_cut_shares_nothing(project: Path, recipe: dict[str, Any]) -> None:
    first = run_embed(project, "working", "data/embedded")
    recipe["embed"]["max_tokens"] = 20
    YAML(typ="safe").dump(recipe, project / "params.yaml")
    second = run_embed(project, "working", "data/embedded")
    assert second["embedded"] == first["texts"]
    assert len(list((project / "working").iterdir())) == 2


SCRIPT = """
import json, sys, time
from pathlib import Path
from stages import embed, params
from stages.corpus.vectors import VectorStore

add = VectorStore.add
def slow(self, keys, vectors):
    add(self, keys, vectors)
    time.sleep(0.1)  # a real teacher takes seconds a shard

VectorStore.add = slow
embed.WORKING_SHARD_ROWS = 20
curated, output, working = (Path(name) for name in sys.argv[1:])
print(json.dumps(embed.embed(params.load(), curated, output, working)))
"""


def start(project: Path, working: str, output: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "data/curated", output, working],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def shards(folder: Path) -> list[Path]:
    return list(folder.rglob("*.safetensors"))


def test_a_kill_costs_only_what_was_under_way(project: Path) -> None:
    whole = start(project, "working-whole", "embedded-whole")
    killed = start(project, "working", "data/embedded")
    deadline = time.monotonic() + 120
    while len(shards(project / "working")) < 3:
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (project / "data/embedded").exists()
    (folder,) = (project / "working").iterdir()
    kept = len(VectorStore(folder))

    again = start(project, "working", "data/embedded")
    figures = json.loads(again.communicate()[0])
    uninterrupted = json.loads(whole.communicate()[0])
    assert uninterrupted["embedded"] == uninterrupted["texts"] == figures["texts"]
    assert 60 <= kept < figures["texts"]
    assert figures["reused"] == kept
    assert figures["embedded"] == figures["texts"] - kept
    assert files(project / "data/embedded") == files(project / "embedded-whole")
