"""The mine stage, and how the retrieval adapter reads what it mined."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.corpus.tables import SCHEMAS, read_table, write_table
from stages.metrics.lexical import bm25_search
from stages.mine import mine
from stages.objectives.retrieval import negative_rows
from stages.recipe.paths import CURATED, EMBEDDED, INCONSISTENT_PAIRS, MINED
from stages.recipe.recipe import read
from stages.reporting.mining_page import render_mining
from stages.teachers.teacher import ReadingRule
from stages.teachers.vector_store import VectorStore

SOURCES = ("wikipedia", "docstrings")


def write_pairs() -> None:
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
        write_table(CURATED / "pairs" / f"{split}.parquet", rows, SCHEMAS["pairs"])


def write_vectors(prompts: dict[str, str]) -> None:
    """A document's vector is near its query's; the whole lies near one direction, so all score well."""
    store = VectorStore(EMBEDDED, {"weights": "w"})
    generator = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        table = read_table(CURATED / "pairs" / f"{split}.parquet")
        queries = generator.normal(size=(len(table), 8)) + 2
        documents = queries + 0.3 * generator.normal(size=queries.shape)
        for side, vectors in (("query", queries), ("document", documents)):
            keys = store.keys(ReadingRule(prompts[side], 96, 96), table[side].to_pylist())
            store.add(keys, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def swap_documents(one: str, other: str, split: str = "train", origin: str = "given") -> None:
    """Give each of two pairs the other's document; `origin` says who asked their questions."""
    path = CURATED / "pairs" / f"{split}.parquet"
    rows = {row["id"]: row for row in read_table(path).to_pylist()}
    rows[one]["origin"] = rows[other]["origin"] = origin
    rows[one]["document"], rows[other]["document"] = rows[other]["document"], rows[one]["document"]
    write_table(path, list(rows.values()), SCHEMAS["pairs"])


def write_recipe(recipe: dict[str, Any]) -> None:
    YAML(typ="safe").dump(recipe, Path("params.yaml"))


Audit = dict[str, dict[str, Any]]


@pytest.fixture
def audit(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """The audit of a mined working folder."""
    monkeypatch.chdir(tmp_path)
    recipe["mine"] |= {"sources": [*SOURCES], "num_negatives": 3, "rank_window": [1, 12], "num_examples": 4}
    recipe["mine"]["relative_margin"] = 0.05
    draw = {"weight": 1.0, "max_tokens": 96, "batch_size": 4}
    mixture = [draw | {"source": source} for source in SOURCES]
    recipe["adapt"]["retrieval"] |= {"mixture": mixture, "num_negatives": 2}
    recipe["embed"] |= {"max_tokens": 96, "prompts": {"query": "q: ", "document": "d: ", "clustering": ""}}
    write_recipe(recipe)
    write_pairs()
    write_vectors(recipe["embed"]["prompts"])
    return mine(read())


def mined_rows() -> list[dict[str, Any]]:
    return read_table(MINED / "negatives.parquet").to_pylist()


@pytest.mark.usefixtures("audit")
def test_negatives_come_from_the_same_source_and_the_train_split() -> None:
    rows = mined_rows()
    assert [row["id"] for row in rows] == [f"{source}/train{n}" for source in SOURCES for n in range(30)]
    found = 0
    for row in rows:
        source, _, _ = row["id"].partition("/")
        assert row["id"] not in row["negatives"]
        assert all(name.startswith(f"{source}/train") for name in row["negatives"])
        assert len(row["negatives"]) == len(row["scores"]) <= 3
        assert row["scores"] == sorted(row["scores"], reverse=True)
        found += len(row["negatives"])
    assert found > 60


def test_audit_counts_what_happened(audit: Audit) -> None:
    assert json.loads((MINED / "audit.json").read_text()) == audit
    assert set(audit) == set(SOURCES)
    rows = mined_rows()
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


@pytest.mark.usefixtures("audit")
def test_mining_twice_gives_the_same_bytes() -> None:
    before = {path.name: path.read_bytes() for path in MINED.iterdir()}
    assert set(before) == {"negatives.parquet", "audit.json", "audit.html", "inconsistent.parquet"}
    mine(read())
    assert {path.name: path.read_bytes() for path in MINED.iterdir()} == before


def test_hard_negatives_are_rows_and_too_few_are_marked() -> None:
    mined = {"a": ["c", "b", "d"], "b": ["a"], "c": [], "d": ["b", "c"]}
    assert negative_rows(["a", "b", "c", "d"], mined, 2).tolist() == [[2, 1], [0, -1], [-1, -1], [1, 2]]


def test_a_pair_that_mine_left_out_gets_no_negative_even_where_its_source_names_some() -> None:
    assert negative_rows(["a", "b"], {"a": ["b"]}, 1, {1: [0]}).tolist() == [[1], [-1]]


def test_pairs_beyond_the_declared_rank_are_left_out_and_shown_with_their_rank(
    audit: Audit, recipe: dict[str, Any]
) -> None:
    assert [figures["inconsistent"] for figures in audit.values()] == [0, 0]
    swap_documents("wikipedia/train0", "wikipedia/train1")
    mine(read())
    before = mined_rows()
    recipe["mine"]["consistency"] = {"wikipedia": 1}
    write_recipe(recipe)
    audit = mine(read())
    left_out = read_table(INCONSISTENT_PAIRS).to_pylist()
    names = {row["id"] for row in left_out}
    assert names == {"wikipedia/train0", "wikipedia/train1"}
    assert audit["wikipedia"]["inconsistent"] == 2
    assert audit["docstrings"]["inconsistent"] == 0
    assert all(row["rank"] > 1 and f"own document {row['rank']}, expected" in row["reason"] for row in left_out)
    assert mined_rows() == [row for row in before if row["id"] not in names]
    page = (MINED / "audit.html").read_text(encoding="utf-8")
    assert "Left out, the lowest first" in page and "expected at most 1" in page


def test_of_test_pairs_only_a_models_questions_are_left_out(audit: Audit, recipe: dict[str, Any]) -> None:
    recipe["mine"]["consistency"] = {"wikipedia": 2}
    write_recipe(recipe)
    mine(read())
    before = {row["id"] for row in read_table(INCONSISTENT_PAIRS).to_pylist()}
    swap_documents("wikipedia/test0", "wikipedia/test1", "test", "model")
    swap_documents("wikipedia/test2", "wikipedia/test3", "test")
    mine(read())
    left_out = {row["id"] for row in read_table(INCONSISTENT_PAIRS).to_pylist()}
    assert left_out - before == {"wikipedia/test0", "wikipedia/test1"}


def test_words_and_an_earlier_student_give_candidates_too(
    audit: Audit, recipe: dict[str, Any], tiny_release: Path
) -> None:
    by_teacher, before = audit, mined_rows()
    recipe["mine"] |= {"candidates": ["bm25", "student"], "student": str(tiny_release / "merged/retrieval")}
    write_recipe(recipe)
    audit, rows = mine(read()), mined_rows()
    assert [row["id"] for row in rows] == [row["id"] for row in before]
    assert rows != before
    for source in SOURCES:
        assert 30 * 12 <= audit[source]["candidates"] <= 30 * 24, "two lists of up to 12, which share some"
        assert audit[source]["mean_positive_score"] == by_teacher[source]["mean_positive_score"]
        for example in audit[source]["examples"]:
            assert all(score <= 0.95 * example["score"] + 1e-6 for score in example["negative_scores"])


def test_a_word_that_no_document_has_gives_no_candidate() -> None:
    found, scores = bm25_search(["still"], ["copper still", "oak cask", "malt"], 3, 1.5, 0.75)
    assert found[0, 0] == 0
    assert (scores[0] > 0).tolist() == [True, False, False]


def test_the_page_shows_suspects_as_text_and_asks_nothing_of_the_network(audit: Audit) -> None:
    evil = '<script>alert("1")</script>'
    suspect = {"query": evil, "document": "its own", "score": 0.5, "suspect": evil * 50, "suspect_score": 0.61}
    page = render_mining(read().mine, {"wikipedia": audit["wikipedia"] | {"suspects": [suspect]}})
    assert "<script" not in page
    assert "left out at 61.0, its own document has 50.0" in page
    assert "query with too few" not in page and "queries with too few negatives" in page
    assert "(1,350 characters)" in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)


@pytest.mark.usefixtures("audit")
def test_margins_that_leave_no_negative_are_refused_before_anything_is_trained(recipe: dict[str, Any]) -> None:
    recipe["mine"]["absolute_margin"] = 1.9
    write_recipe(recipe)
    with pytest.raises(ValueError, match=r"too few pairs with a hard negative, .*\(0 of 30\).*relative_margin"):
        mine(read())
    assert (MINED / "audit.html").exists()
