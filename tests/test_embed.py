"""The embed stage with a tiny teacher: which texts it embeds, after kills and with added rows, byte for byte."""

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
from stages.embed import embed
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.modeling.truncation import encode_windows
from stages.recipe.paths import CURATED, EMBEDDED, VECTORS
from stages.recipe.recipe import read
from stages.teachers.collection import collect
from stages.teachers.teacher import ReadingRule
from stages.teachers.teacher_inputs import read_inputs, teacher_inputs
from stages.teachers.vector_store import VectorStore
from tests.conftest import cut_at

ROOT = Path(__file__).resolve().parents[1]
ORIGIN = {"entity": "e", "language": "en", "license": "MIT"}
PROMPTS = {"query": "query : ", "document": "", "clustering": "document : "}
pytestmark = pytest.mark.usefixtures("project")
RULES = {side: ReadingRule(prompt, 24, 24) for side, prompt in PROMPTS.items()}


def write_curated(texts: list[str]) -> None:
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
            write_table(CURATED / kind / f"{split}.parquet", rows[kind][place::3], schema)


@pytest.fixture
def project(
    short_recipe: dict[str, Any],
    backbones: dict[str, Path],
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The working folder, with a recipe and curated rows."""
    monkeypatch.chdir(tmp_path)
    cut_at(short_recipe, 24)
    short_recipe["embed"] |= {
        "teacher": {"kind": "transformer", "path": str(backbones["bert"]), "pooling": "mean"},
        "batch_tokens": 64,
        "prompts": PROMPTS,
    }
    short_recipe["engine"]["threads"] = 1
    write_recipe(short_recipe)
    write_curated(sentences)
    return tmp_path


def write_recipe(recipe: dict[str, Any]) -> None:
    YAML(typ="safe").dump(recipe, Path("params.yaml"))


def texts_by_rule() -> dict[tuple[str, ReadingRule], set[str]]:
    recipe = read()
    texts: dict[tuple[str, ReadingRule], set[str]] = {}
    for side, rule, batch in read_inputs(
        teacher_inputs(recipe.curate, recipe.adapt, recipe.evaluate), CURATED, recipe.embed
    ):
        texts.setdefault((side, rule), set()).update(batch)
    return texts


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_text_is_read_once_with_each_instruction_that_needs_it(sentences: list[str]) -> None:
    texts = texts_by_rule()
    queries, documents = sentences[::2], sentences[1::2]
    assert set(texts) == set(RULES.items())
    assert texts["query", RULES["query"]] == {*queries}
    # Documents, both sides of scored pairs, and both sides of text matching's pairs: here every pair.
    assert texts["document", RULES["document"]] == {*documents, *queries}
    assert texts["clustering", RULES["clustering"]] == {*queries[::2], *documents[::2]}


def read_wikipedia_in_windows(recipe: dict[str, Any], **changes: Any) -> None:
    """Have documents of the source wikipedia read in windows of 8 tokens; some of them are longer than 16."""
    recipe["embed"]["long"] = {"sources": ["wikipedia"], "max_tokens": 16, "window_tokens": 8}
    recipe["adapt"]["retrieval"]["mixture"][0]["max_tokens"] = 16  # no more than the teacher
    recipe["embed"] |= {"max_truncated_share": 0.5, **changes}
    write_recipe(recipe)


def test_documents_of_a_long_source_are_read_in_windows(
    recipe: dict[str, Any], sentences: list[str], teacher: Encoder
) -> None:
    read_wikipedia_in_windows(recipe)
    embed(read())
    store = VectorStore(EMBEDDED)
    documents = sentences[1:40:4]  # of the first source, as queries and documents go in turns, and so do sources
    expected = encode_windows(teacher, documents, "document", 16, 8, batch_tokens=64)
    np.testing.assert_allclose(store.vectors_of(ReadingRule("", 16, 8), documents), expected, atol=1e-3)
    assert np.abs(expected - teacher.encode(documents, "document")).max() > 0.01
    np.testing.assert_allclose(
        store.vectors_of(RULES["clustering"], documents), teacher.encode(documents, "clustering"), atol=1e-3
    )


def test_articles_that_only_the_student_is_measured_on_are_left_out(recipe: dict[str, Any]) -> None:
    recipe["curate"]["sources"].append(recipe["curate"]["sources"][0] | {"name": "articles", "kind": "pairs"})
    recipe["evaluate"]["long"]["articles"] = "articles"
    row = {"id": "a", **ORIGIN, "source": "articles", "query": "an article", "document": "is not read"}
    write_table(CURATED / "pairs/test.parquet", [row], SCHEMAS["pairs"])
    read_wikipedia_in_windows(recipe)
    texts = set().union(*texts_by_rule().values())
    assert texts
    assert not texts & {"an article", "is not read"}


def test_too_many_cut_texts_are_refused_before_any_is_embedded(recipe: dict[str, Any]) -> None:
    read_wikipedia_in_windows(recipe, max_truncated_share=0.1)
    with pytest.raises(
        ValueError, match=r"embed: \d+\.\d% of 100 texts are cut at max_tokens 16, max_truncated_share is"
    ):
        embed(read())
    assert not list(VECTORS.rglob("*.safetensors"))
    assert not EMBEDDED.exists()


@pytest.fixture
def teacher(backbones: dict[str, Path]) -> Encoder:
    return load_encoder(str(backbones["bert"]), EncoderSettings("mean", PROMPTS, 24))


def test_stored_vectors_are_the_teachers(teacher: Encoder, sentences: list[str]) -> None:
    figures = embed(read())
    assert figures["texts"] == figures["embedded"]
    assert figures["reused"] == 0
    store = VectorStore(EMBEDDED)
    assert len(store) == figures["texts"]
    sides = {"query": sentences[:20:2], "document": sentences[1:20:2], "clustering": sentences[:20:4]}
    for side, texts in sides.items():
        expected = teacher.encode(texts, side)
        np.testing.assert_allclose(store.vectors_of(RULES[side], texts), expected, atol=1e-3)
        assert np.abs(expected - teacher.encode(texts, "query" if side == "document" else "document")).max() > 0.01


def test_nothing_is_embedded_twice_and_rows_added_cost_only_themselves(sentences: list[str]) -> None:
    write_curated(sentences[:120])
    first = embed(read())
    before = files(EMBEDDED)
    again = embed(read())
    assert (again["embedded"], again["reused"]) == (0, first["texts"])
    assert files(EMBEDDED) == before

    write_curated(sentences)
    more = embed(read())
    assert more["reused"] == first["texts"]
    assert more["embedded"] == more["texts"] - first["texts"] > 0
    # Back to the first rows: the export holds this build's texts alone.
    write_curated(sentences[:120])
    embed(read())
    assert files(EMBEDDED) == before


def test_another_cut_or_pooling_shares_nothing(recipe: dict[str, Any]) -> None:
    first = embed(read())
    cut_at(recipe, 20)
    for changes in ({}, {"teacher": recipe["embed"]["teacher"] | {"pooling": "cls"}}):
        recipe["embed"] |= changes
        write_recipe(recipe)
        assert embed(read())["embedded"] == first["texts"]
    assert len(list(VECTORS.glob("*/manifest.json"))) == 2  # a store for each way of pooling


def test_garbage_is_what_this_build_does_not_hold(recipe: dict[str, Any], sentences: list[str]) -> None:
    with pytest.raises(ValueError, match="holds no vector store"):
        collect()
    more = embed(read())["texts"]
    recipe["embed"]["teacher"]["pooling"] = "cls"
    write_recipe(recipe)
    write_curated(sentences[:60])
    fewer = embed(read())["texts"]
    write_curated(sentences[:40])
    embed(read())
    before = files(EMBEDDED)
    build = VectorStore(EMBEDDED)
    assert collect() == (more + fewer - len(build), len(build))
    assert collect() == (0, len(build))
    shutil.rmtree(EMBEDDED)
    assert embed(read())["embedded"] == 0
    assert files(EMBEDDED) == before


def test_texts_in_small_chunks_are_all_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    add = VectorStore.add

    def counted(store: VectorStore, keys: np.ndarray, vectors: np.ndarray) -> None:
        added.append(len(keys))
        add(store, keys, vectors)

    monkeypatch.setattr(VectorStore, "add", counted)
    monkeypatch.setattr("stages.teachers.embedding.CHUNK_ROWS", 50)
    figures = embed(read())
    *of_chunks, exported = added
    assert len(of_chunks) > 4
    assert sum(of_chunks) == exported == figures["embedded"] == figures["texts"]


SCRIPT = """
import json, time
from stages.embed import embed
from stages.recipe.recipe import read
from stages.teachers import embedding
from stages.teachers.vector_store import VectorStore

add = VectorStore.add
def slow(self, keys, vectors):
    add(self, keys, vectors)
    time.sleep(0.1)  # a real teacher takes seconds a shard

VectorStore.add = slow
embedding.WORKING_SHARD_ROWS = 20
print(json.dumps(embed(read())))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
def test_a_kill_costs_only_what_was_under_way(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("uninterrupted") / "project"
    shutil.copytree(project, other)
    whole, killed = start(other), start(project)
    deadline = time.monotonic() + 120
    while len(list(VECTORS.rglob("*.safetensors"))) < 3:
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not EMBEDDED.exists()
    (manifest,) = VECTORS.glob("*/manifest.json")
    num_stored = len(VectorStore(manifest.parent))

    figures = json.loads(start(project).communicate()[0])
    uninterrupted = json.loads(whole.communicate()[0])
    assert uninterrupted["embedded"] == uninterrupted["texts"] == figures["texts"]
    assert 60 <= num_stored < figures["texts"]
    assert figures["reused"] == num_stored
    assert figures["embedded"] == figures["texts"] - num_stored
    assert files(EMBEDDED) == files(other / EMBEDDED)
