"""The mine stage, and how the retrieval adapter reads what it mined."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.adapt.retrieval import hard_negatives
from stages.corpus.tables import SCHEMAS, read_table, write_table
from stages.metrics.lexical import bm25_search
from stages.mine import mine_all
from stages.recipe.recipe import read
from stages.reporting.mining_page import render_mining
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore

SOURCES = ("wikipedia", "docstrings")


def write_pairs(folder: Path) -> None:
    for split, number in (("train", 30), ("dev", 10), ("test", 10)):
        rows = [
            {
                "id": f"{source}/{split}{n}",
                "query": f"{source} {split} query {n}",
                "document": f"{source} {split} document {n}",
                "entity": f"e{n}",
                "source": source,
                "language": "en",
                "license": "MIT",
            }
            for source in (*SOURCES, "botocore")
            for n in range(number)
        ]
        write_table(folder / "pairs" / f"{split}.parquet", rows, SCHEMAS["pairs"])


def write_vectors(folder: Path, curated: Path, prompts: dict[str, str]) -> None:
    """A document's vector is near its query's; the whole lies near one direction, so all score well."""
    store = VectorStore(folder, {"weights": "w"})
    generator = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        table = read_table(curated / "pairs" / f"{split}.parquet")
        queries = generator.normal(size=(len(table), 8)) + 2
        documents = queries + 0.3 * generator.normal(size=queries.shape)
        for side, vectors in (("query", queries), ("document", documents)):
            keys = store.keys(ReadingRule(prompts[side], 96, 96), table[side].to_pylist())
            store.add(keys, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def mined(recipe: dict[str, Any], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    recipe["mine"] |= {"sources": [*SOURCES], "num_negatives": 3, "rank_window": [1, 12], "num_examples": 4}
    recipe["mine"]["relative_margin"] = 0.05
    draw = {"weight": 1.0, "max_tokens": 96, "batch_size": 4}
    mixture = [draw | {"source": source} for source in SOURCES]
    recipe["adapt"]["retrieval"] |= {"mixture": mixture, "num_negatives": 2}
    recipe["embed"] |= {"max_tokens": 96, "prompts": {"query": "q: ", "document": "d: ", "clustering": ""}}
    YAML(typ="safe").dump(recipe, tmp_path / "params.yaml")
    write_pairs(tmp_path / "curated")
    write_vectors(tmp_path / "embedded", tmp_path / "curated", recipe["embed"]["prompts"])
    checked = read(tmp_path / "params.yaml")
    return tmp_path, mine_all(checked, tmp_path / "curated", tmp_path / "embedded", tmp_path / "mined")


def test_negatives_come_from_the_same_source_and_the_train_split(mined: tuple[Path, dict[str, Any]]) -> None:
    rows = read_table(mined[0] / "mined" / "negatives.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"{source}/train{n}" for source in SOURCES for n in range(30)]
    found = 0
    for row in rows:
        place, _, _ = row["id"].partition("/")
        assert row["id"] not in row["negatives"]
        assert all(name.startswith(f"{place}/train") for name in row["negatives"])
        assert len(row["negatives"]) == len(row["scores"]) <= 3
        assert row["scores"] == sorted(row["scores"], reverse=True)
        found += len(row["negatives"])
    assert found > 60


def test_audit_counts_what_happened(mined: tuple[Path, dict[str, Any]]) -> None:
    folder, audit = mined
    assert json.loads((folder / "mined" / "audit.json").read_text()) == audit
    assert set(audit) == set(SOURCES)
    rows = read_table(folder / "mined" / "negatives.parquet").to_pylist()
    for source in SOURCES:
        figures = audit[source]
        of_source = [row for row in rows if row["id"].startswith(f"{source}/")]
        few = sum(len(row["negatives"]) < 3 for row in of_source) / 30
        assert (figures["pairs"], figures["candidates"]) == (30, 30 * 12)
        assert figures["with_too_few_negatives"] == few
        assert 0 < figures["removed_by_margin"] < 1
        assert figures["mean_negative_score"] < figures["mean_positive_score"] * 0.95
        assert len(figures["examples"]) == 4
        for example in figures["examples"]:
            assert example["document"] not in example["negatives"]
            assert all(score <= 0.95 * example["score"] + 1e-6 for score in example["negative_scores"])


def test_mining_twice_gives_the_same_bytes(mined: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = mined
    mine_all(read(folder / "params.yaml"), folder / "curated", folder / "embedded", folder / "again")
    for name in ("negatives.parquet", "audit.json", "audit.html"):
        assert (folder / "again" / name).read_bytes() == (folder / "mined" / name).read_bytes()


def test_hard_negatives_are_rows_and_too_few_are_marked() -> None:
    mined = {"a": ["c", "b", "d"], "b": ["a"], "c": [], "d": ["b", "c"]}
    assert hard_negatives(["a", "b", "c", "d"], mined, 2).tolist() == [[2, 1], [0, -1], [-1, -1], [1, 2]]


def test_words_and_an_earlier_student_give_candidates_too(
    mined: tuple[Path, dict[str, Any]], recipe: dict[str, Any], tiny_release: Path
) -> None:
    folder, alone = mined
    recipe["mine"] |= {"candidates": ["bm25", "student"], "student": str(tiny_release / "merged/retrieval")}
    YAML(typ="safe").dump(recipe, folder / "params.yaml")
    audit = mine_all(read(folder / "params.yaml"), folder / "curated", folder / "embedded", folder / "others")
    rows, before = (read_table(folder / name / "negatives.parquet").to_pylist() for name in ("others", "mined"))
    assert [row["id"] for row in rows] == [row["id"] for row in before]
    assert rows != before
    for source in SOURCES:
        assert 30 * 12 <= audit[source]["candidates"] <= 30 * 24, "two lists of up to 12, which share some"
        assert audit[source]["mean_positive_score"] == alone[source]["mean_positive_score"]
        for example in audit[source]["examples"]:
            assert all(score <= 0.95 * example["score"] + 1e-6 for score in example["negative_scores"])


def test_a_word_that_no_document_has_gives_no_candidate() -> None:
    found, scores = bm25_search(["still"], ["copper still", "oak cask", "malt"], 3, 1.5, 0.75)
    assert found[0, 0] == 0
    assert (scores[0] > 0).tolist() == [True, False, False]


def test_the_page_shows_suspects_as_text_and_asks_nothing_of_the_network(mined: tuple[Path, dict[str, Any]]) -> None:
    _, audit = mined
    evil = '<script>alert("1")</script>'
    suspect = {"query": evil, "document": "its own", "score": 0.5, "suspect": evil * 50, "suspect_score": 0.61}
    figures = audit["wikipedia"] | {"suspects": [suspect]}
    settings = {"candidates": ["teacher", "bm25"], "rank_window": [1, 12], "num_negatives": 3}
    page = render_mining(settings | {"relative_margin": 0.05, "absolute_margin": None}, {"wikipedia": figures})
    assert "<script" not in page
    assert "left out at 61.0, its own document has 50.0" in page
    assert "query with too few" not in page and "queries with too few negatives" in page
    assert "(1,350 characters)" in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)
