"""The embed stage with a tiny teacher: what is asked for, kills, added rows, byte for byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, SPLITS, write_table
from stages.embed import collect, embed, wanted
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.modeling.truncation import encode_windows
from stages.recipe.recipe import Recipe, read
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore
from tests.conftest import cut_at

ROOT = Path(__file__).resolve().parents[1]
ORIGIN = {"entity": "e", "language": "en", "license": "MIT"}
PROMPTS = {"query": "query : ", "document": "", "clustering": "document : "}
READINGS = {side: ReadingRule(prompt, 24, 24) for side, prompt in PROMPTS.items()}


def write_curated(folder: Path, texts: list[str]) -> None:
    """Pairs of two sources, scored, labelled and single rows, in three splits, out of the texts."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in SCHEMAS}
    for number, (left, right) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        row = {"id": str(number), **ORIGIN, "source": ("wikipedia", "wikipedia-descriptions")[number % 2]}
        rows["pairs"].append(row | {"query": left, "document": right})
        if number % 10 == 0:
            rows["scored"].append(row | {"source": "simlex", "text_a": left, "text_b": right, "score": 0.5})
            rows["labelled"].append(row | {"source": "wikipedia-topics", "text": right, "label": "a"})
            rows["documents"].append(row | {"source": "speeches", "text": f"{left} {right}"})
    for kind, schema in SCHEMAS.items():
        for place, split in enumerate(SPLITS):
            write_table(folder / kind / f"{split}.parquet", rows[kind][place::3], schema)


def transformer(path: Path, pooling: str = "mean") -> dict[str, str]:
    return {"kind": "transformer", "path": str(path), "pooling": pooling}


@pytest.fixture
def project(short_recipe: dict[str, Any], backbones: dict[str, Path], sentences: list[str], tmp_path: Path) -> Path:
    """A folder with a recipe and curated rows."""
    recipe = short_recipe
    cut_at(recipe, 24)
    recipe["embed"] |= {
        "teacher": transformer(backbones["bert"]),
        "batch_tokens": 64,
        "prompts": PROMPTS,
    }
    recipe["engine"]["threads"] = 1
    YAML(typ="safe").dump(recipe, tmp_path / "params.yaml")
    write_curated(tmp_path / "data/curated", sentences)
    return tmp_path


def run_embed(project: Path, working: str, output: str) -> dict[str, float]:
    recipe = read(project / "params.yaml")
    return embed(recipe, project / "data/curated", project / output, project / working)


def distinct(recipe: Recipe, project: Path) -> dict[tuple[str, ReadingRule], set[str]]:
    texts: dict[tuple[str, ReadingRule], set[str]] = {}
    for side, reading, batch in wanted(recipe, project / "data/curated"):
        texts.setdefault((side, reading), set()).update(batch)
    return texts


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_text_is_wanted_once_under_the_instructions_that_read_it(project: Path, sentences: list[str]) -> None:
    texts = distinct(read(project / "params.yaml"), project)
    queries, documents = sentences[::2], sentences[1::2]
    assert set(texts) == set(READINGS.items())
    assert texts["query", READINGS["query"]] == {*queries}
    # Documents, both sides of scored pairs, and both sides of text matching's pairs: here every pair.
    assert texts["document", READINGS["document"]] == {*documents, *queries}
    assert texts["clustering", READINGS["clustering"]] == {*queries[::2], *documents[::2]}


def long_source(project: Path, recipe: dict[str, Any], **changes: Any) -> Recipe:
    """The recipe with documents of the source wikipedia read in windows of 8 tokens, some of them longer than 16."""
    recipe["embed"]["long"] = {"sources": ["wikipedia"], "max_tokens": 16, "window_tokens": 8}
    recipe["adapt"]["retrieval"]["mixture"][0]["max_tokens"] = 16  # no more than the teacher
    recipe["embed"] |= {"max_truncated_share": 0.5, **changes}
    YAML(typ="safe").dump(recipe, project / "params.yaml")
    return read(project / "params.yaml")


def test_documents_of_a_long_source_are_read_in_windows(
    project: Path, recipe: dict[str, Any], sentences: list[str], teacher: Encoder
) -> None:
    long_source(project, recipe)
    run_embed(project, "working", "data/embedded")
    store = VectorStore(project / "data/embedded")
    documents = sentences[1:40:4]  # of the first source, as queries and documents go in turns, and so do sources
    expected = encode_windows(teacher, documents, "document", 16, 8, batch_tokens=64)
    np.testing.assert_allclose(store.texts(ReadingRule("", 16, 8), documents), expected, atol=1e-3)
    assert np.abs(expected - teacher.encode(documents, "document")).max() > 0.01
    np.testing.assert_allclose(
        store.texts(READINGS["clustering"], documents), teacher.encode(documents, "clustering"), atol=1e-3
    )


def test_articles_that_only_the_student_is_measured_on_are_left_out(
    project: Path, recipe: dict[str, Any], sentences: list[str]
) -> None:
    named = [{**recipe["curate"]["sources"][0], "name": "articles", "kind": "pairs"}]
    recipe["curate"]["sources"] += named
    recipe["evaluate"]["long"]["articles"] = "articles"
    rows = {"id": "a", **ORIGIN, "source": "articles", "query": "an article", "document": "is not read"}
    curated = project / "data/curated"
    write_table(curated / "pairs/test.parquet", [rows], SCHEMAS["pairs"])
    texts = set().union(*distinct(long_source(project, recipe), project).values())
    assert texts
    assert not texts & {"an article", "is not read"}


def test_too_many_cut_texts_are_refused_before_any_is_embedded(project: Path, recipe: dict[str, Any]) -> None:
    long_source(project, recipe, max_truncated_share=0.1)
    with pytest.raises(
        ValueError, match=r"embed: \d+\.\d% of 100 texts are cut at max_tokens 16, max_truncated_share is"
    ):
        run_embed(project, "working", "data/embedded")
    assert not list((project / "working").rglob("*.safetensors"))
    assert not (project / "data/embedded").exists()


@pytest.fixture
def teacher(backbones: dict[str, Path]) -> Encoder:
    return load_encoder(str(backbones["bert"]), EncoderSettings("mean", PROMPTS, 24))


def test_stored_vectors_are_the_teachers(project: Path, teacher: Encoder, sentences: list[str]) -> None:
    figures = run_embed(project, "working", "data/embedded")
    assert figures["texts"] == figures["embedded"]
    assert figures["reused"] == 0
    store = VectorStore(project / "data/embedded")
    assert len(store) == figures["texts"]
    sides = {"query": sentences[:20:2], "document": sentences[1:20:2], "clustering": sentences[:20:4]}
    for side, texts in sides.items():
        expected = teacher.encode(texts, side)
        np.testing.assert_allclose(store.texts(READINGS[side], texts), expected, atol=1e-3)
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


def test_another_cut_or_pooling_shares_nothing(project: Path, recipe: dict[str, Any]) -> None:
    first = run_embed(project, "working", "data/embedded")
    cut_at(recipe, 20)
    for changes in ({}, {"teacher": recipe["embed"]["teacher"] | {"pooling": "cls"}}):
        recipe["embed"] |= changes
        YAML(typ="safe").dump(recipe, project / "params.yaml")
        assert run_embed(project, "working", "data/embedded")["embedded"] == first["texts"]
    assert len(list((project / "working").glob("*/manifest.json"))) == 2  # a store for each way of pooling


def test_garbage_is_what_this_build_does_not_hold(project: Path, recipe: dict[str, Any], sentences: list[str]) -> None:
    working, output = project / "working", project / "data/embedded"
    with pytest.raises(ValueError, match="holds no vector store"):
        collect(output, working)
    more = run_embed(project, "working", "data/embedded")["texts"]
    recipe["embed"]["teacher"]["pooling"] = "cls"
    YAML(typ="safe").dump(recipe, project / "params.yaml")
    write_curated(project / "data/curated", sentences[:60])
    fewer = run_embed(project, "working", "data/embedded")["texts"]
    write_curated(project / "data/curated", sentences[:40])
    run_embed(project, "working", "data/embedded")
    before = files(output)
    build = VectorStore(output)
    assert collect(output, working) == (more + fewer - len(build), len(build))
    assert collect(output, working) == (0, len(build))
    shutil.rmtree(output)
    assert run_embed(project, "working", "data/embedded")["embedded"] == 0
    assert files(output) == before


def test_texts_in_small_chunks_are_all_embedded_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    add = VectorStore.add

    def counted(store: VectorStore, keys: np.ndarray, vectors: np.ndarray) -> None:
        added.append(len(keys))
        add(store, keys, vectors)

    monkeypatch.setattr(VectorStore, "add", counted)
    monkeypatch.setattr("stages.embed.CHUNK_ROWS", 50)
    figures = run_embed(project, "working", "data/embedded")
    *of_chunks, exported = added
    assert len(of_chunks) > 4
    assert sum(of_chunks) == exported == figures["embedded"] == figures["texts"]


SCRIPT = """
import json, sys, time
from pathlib import Path
from stages import embed
from stages.recipe.recipe import Recipe, load, read
from stages.teachers.vector_store import VectorStore

add = VectorStore.add
def slow(self, keys, vectors):
    add(self, keys, vectors)
    time.sleep(0.1)  # a real teacher takes seconds a shard

VectorStore.add = slow
embed.WORKING_SHARD_ROWS = 20
curated, output, working = (Path(name) for name in sys.argv[1:])
print(json.dumps(embed.embed(load(), curated, output, working)))
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
    (folder,) = (manifest.parent for manifest in (project / "working").glob("*/manifest.json"))
    kept = len(VectorStore(folder))

    again = start(project, "working", "data/embedded")
    figures = json.loads(again.communicate()[0])
    uninterrupted = json.loads(whole.communicate()[0])
    assert uninterrupted["embedded"] == uninterrupted["texts"] == figures["texts"]
    assert 60 <= kept < figures["texts"]
    assert figures["reused"] == kept
    assert figures["embedded"] == figures["texts"] - kept
    assert files(project / "data/embedded") == files(project / "embedded-whole")
