"""The curate stage on local files: what it writes, what it refuses, and what it leaves alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.corpus import cleaning
from stages.corpus.preview import preview
from stages.corpus.tables import SCHEMAS, SPLITS, read_table
from stages.curate import curate
from stages.recipe.fields import Kind
from stages.recipe.paths import CURATED, REFUSED, VALIDATED
from stages.recipe.recipe import read
from tests.corpus.builders import fields

ROOT = Path(__file__).resolve().parents[1]
SPLITS_OF_ALL = {"dev": 0.2, "test": 0.3}


def source(name: str, kind: Kind, reader: str, file: str, words: dict[str, list[int]], **others: Any) -> dict[str, Any]:
    keys = {"name": name, "reader": reader, "files": [f"data/sources/{file}"], "words": words}
    return fields(kind, **{"splits": SPLITS_OF_ALL, "max_rejected_share": 0.2} | keys | others)


SOURCES = [
    source("wikipedia", "pairs", "wikipedia.leads", "articles.json", {"query": [2, 40], "document": [2, 40]}),
    source("wikipedia-topics", "labelled", "wikipedia.topics", "articles.json", {"text": [2, 40]}),
    source(
        "simlex",
        "scored",
        "human_scores.word_pairs",
        "words.tsv",
        {"text_a": [1, 2], "text_b": [1, 2]},
        options={"scale": 10.0},
    ),
    source(
        "speeches",
        "documents",
        "speeches.documents",
        "*-Nobody-1.txt",
        {"text": [6, 40]},
        options={"stretch_words": 40},
    ),
]


def article(number: int) -> dict[str, str]:
    extract = f"Thing {number} is a thing of kind {number}. People of town {number} made thing {number} long ago."
    return {
        "title": f"Thing {number}",
        "extract": extract,
        "description": f"A thing {number}",
        "topic": "AB"[number % 2],
    }


def write_sources(num_articles: int = 60) -> None:
    folder = Path("data/sources")
    folder.mkdir(parents=True, exist_ok=True)
    articles = {str(number): article(number) for number in range(num_articles)}
    articles["empty"] = article(0) | {"title": "Empty", "extract": "Only one sentence here."}
    (folder / "articles.json").write_text(json.dumps(articles))
    pairs = "".join(f"left{number}\tright{number}\t{number % 11}\n" for number in range(60))
    (folder / "words.tsv").write_text("# word word score\n" + pairs)
    for number in range(20):
        text = f"This is speech {number} of many. It has words of number {number}. It ends there."
        (folder / f"19{number:02}-Nobody-1.txt").write_text(text)


@pytest.fixture
def recipe_here(short_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A recipe of four local sources, in a folder of its own."""
    recipe = short_recipe
    monkeypatch.chdir(tmp_path)
    recipe["curate"]["sources"] = [json.loads(json.dumps(one)) for one in SOURCES]
    recipe["curate"]["near_duplicates"]["across"] = []
    recipe["mine"]["sources"] = recipe["distill"]["sources"] = ["wikipedia"]
    for task, key, name in [
        ("text-matching", "scored_sources", "simlex"),
        ("text-matching", "pair_sources", "wikipedia"),
        ("clustering", "sources", "wikipedia"),
        ("classification", "sources", "wikipedia-topics"),
    ]:
        recipe["adapt"][task][key] = [name]
    recipe["adapt"]["retrieval"]["mixture"] = [{**recipe["adapt"]["retrieval"]["mixture"][0], "source": "wikipedia"}]
    recipe["evaluate"]["sources"] |= {
        "retrieval": ["wikipedia"],
        "text-matching": ["simlex"],
        "clustering": ["wikipedia-topics"],
        "classification": ["wikipedia-topics"],
    }
    write_sources()
    return recipe


def run(recipe: dict[str, Any]) -> dict[str, dict[str, int]]:
    YAML(typ="safe").dump(recipe, Path("params.yaml"))
    return curate(read())


def refused(recipe: dict[str, Any]) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        run(recipe)
    assert isinstance(stop.value.code, str), "a message, so the exit status is 1"
    return stop.value.code.splitlines()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_clean_sources_become_tables_of_three_splits(recipe_here: dict[str, Any]) -> None:
    counts = run(recipe_here)
    assert (counts["wikipedia"]["read"], counts["wikipedia"]["rejected"]) == (61, 1)
    assert json.loads((CURATED / "counts.json").read_text()) == counts
    entities: dict[str, set[str]] = {}
    names = {"pairs": "wikipedia", "labelled": "wikipedia-topics", "scored": "simlex", "documents": "speeches"}
    for kind, name in names.items():
        for split in SPLITS:
            table = read_table(CURATED / kind / f"{split}.parquet")
            assert table.schema.equals(SCHEMAS[kind])
            assert len(table) == counts[name][split] > 0
            if kind in ("pairs", "labelled"):
                entities.setdefault(split, set()).update(table["entity"].to_pylist())
        assert sum(counts[name][split] for split in SPLITS) + counts[name]["rejected"] == counts[name]["read"]
    assert not entities["train"] & entities["test"], "an article is in one split, whatever source reads it"
    assert not entities["train"] & entities["dev"]
    rejected = read_table(CURATED / "rejected.parquet").to_pylist()
    assert {(row["source"], row["reason"], row["entity"]) for row in rejected} == {
        ("wikipedia", "document: empty", "Empty"),
        ("wikipedia-topics", "text: empty", "Empty"),
    }
    result = json.loads((VALIDATED / "validation.json").read_text())
    assert result["success"] is True
    assert [suite["source"] for suite in result["suites"]] == ["wikipedia", "wikipedia-topics", "simlex", "speeches"]
    assert "wikipedia-topics" in (VALIDATED / "validation.html").read_text()
    assert not REFUSED.exists()


def test_the_same_input_gives_the_same_tables(recipe_here: dict[str, Any]) -> None:
    run(recipe_here)
    first = files(CURATED)
    shutil.rmtree(CURATED)
    run(recipe_here)
    assert files(CURATED) == first


def test_too_many_rejected_rows_are_refused(recipe_here: dict[str, Any]) -> None:
    recipe_here["curate"]["sources"][0]["words"]["document"] = [2, 5]
    lines = refused(recipe_here)
    assert lines[0] == "error: curated rows were refused"
    assert lines[1] == (
        "  wikipedia: 100.0% of 61 rows rejected, max_rejected_share is 20.0%; document: over 5 words (60), "
        "document: empty (1)"
    )
    assert "wikipedia: expect_column_values_to_be_between(rows): observed 0, expected {'min_value': 1" in lines[2]
    assert lines[-1].startswith(f"  the rows are in {REFUSED}; open ")
    rejected = read_table(REFUSED / "curated" / "rejected.parquet").to_pylist()
    assert [row["reason"] for row in rejected if row["source"] == "wikipedia"][:60] == ["document: over 5 words"] * 60
    assert rejected[0]["texts"] == ["Thing 0 is a thing of kind 0.", "People of town 0 made it long ago."]


def test_refused_rows_are_named_and_readable_and_good_outputs_stay(recipe_here: dict[str, Any]) -> None:
    run(recipe_here)
    good = files(Path("data"))
    recipe_here["curate"]["sources"][2]["options"]["scale"] = 1000.0  # scaled once too often
    recipe_here["curate"]["sources"][1]["language"] = "de"
    lines = refused(recipe_here)
    assert lines[1].startswith("  wikipedia-topics: ") and "text: in en, not de (" in lines[1]
    assert sorted(line.strip().partition(": observed")[0] for line in lines[2:-1]) == [
        "simlex: expect_column_values_to_be_between(score_range)",
        "simlex: expect_column_values_to_be_between(score_stdev)",
        "wikipedia-topics: expect_column_values_to_be_between(rows)",
    ]
    result = json.loads((REFUSED / "validated" / "validation.json").read_text())
    assert result["success"] is False
    assert "Failed" in (REFUSED / "validated" / "validation.html").read_text()
    scores = read_table(REFUSED / "curated" / "scored" / "train.parquet")["score"].to_pylist()
    assert 0 < max(scores) <= 0.01
    assert files(Path("data")) == good, "data/curated is as it was"


def test_an_expectation_names_its_rows(recipe_here: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that cleaning lets through by mistake are still caught."""
    recipe_here["curate"]["language_id"] = None
    monkeypatch.setattr(cleaning, "_wrong_length", lambda _counts, _limits: None)
    recipe_here["curate"]["sources"][0]["words"]["query"] = [2, 9]
    file = Path("data/sources/articles.json")
    articles = json.loads(file.read_text())
    articles["3"]["extract"] = "This first sentence is far too long for the limit of nine. The rest is short."
    del articles["empty"]
    file.write_text(json.dumps(articles))
    lines = refused(recipe_here)
    assert lines[1:-1] == ["  wikipedia: expect_column_values_to_be_between(query_words): 1 of 60 rows, such as [12]"]


def test_a_missing_file_or_reader_is_said_and_nothing_is_written(recipe_here: dict[str, Any]) -> None:
    recipe_here["curate"]["sources"][0]["files"] = ["data/sources/nothing-*.json"]
    with pytest.raises(FileNotFoundError, match=r"no file matches 'data/sources/nothing-\*\.json'"):
        run(recipe_here)
    recipe_here["curate"]["sources"][0] |= {"files": ["data/sources/articles.json"], "reader": "wikipedia.lead"}
    with pytest.raises(ValueError, match=r"unknown reader 'wikipedia\.lead'"):
        run(recipe_here)
    assert not CURATED.exists()
    assert not VALIDATED.exists()


def test_a_label_that_only_one_train_row_has_is_not_trained_on(recipe_here: dict[str, Any]) -> None:
    """Two rows a label: where the split parts them, the train row has no positive; the test row stays a test."""
    articles = {str(number): article(number) | {"topic": f"topic {number // 2}"} for number in range(60)}
    Path("data/sources/articles.json").write_text(json.dumps(articles))
    recipe_here["curate"]["sources"][1]["max_rejected_share"] = 1.0
    run(recipe_here)
    labels = {split: read_table(CURATED / f"labelled/{split}.parquet")["label"].to_pylist() for split in SPLITS}
    rejected = read_table(CURATED / "rejected.parquet").to_pylist()
    lonely = [row for row in rejected if row["reason"] == "label: of one train row only"]
    assert len(lonely) > 5
    assert {labels["train"].count(label) for label in labels["train"]} == {2}
    assert len(labels["train"]) + len(labels["dev"]) + len(labels["test"]) + len(lonely) == 60


@pytest.mark.slow
def test_labels_that_differ_by_capitals_stay_apart_and_are_named(recipe_here: dict[str, Any]) -> None:
    articles = {str(number): article(number) for number in range(60)}
    for number in range(0, 60, 3):
        articles[str(number)]["topic"] = "ab"[number % 2] + " "
    Path("data/sources/articles.json").write_text(json.dumps(articles))
    run(recipe_here)
    labels = {
        row for split in SPLITS for row in read_table(CURATED / "labelled" / f"{split}.parquet")["label"].to_pylist()
    }
    assert labels == {"A", "B", "a", "b"}
    (profile,) = [
        one for one in json.loads((VALIDATED / "validation.json").read_text())["profiles"] if "similar_labels" in one
    ]
    assert (profile["source"], profile["similar_labels"]) == ("wikipedia-topics", [["A", "a"], ["B", "b"]])
    assert "wikipedia-topics: <code>A</code>, <code>a</code>" in (VALIDATED / "validation.html").read_text()


def test_max_rows_keeps_its_choice_when_rows_are_added(recipe_here: dict[str, Any]) -> None:
    recipe_here["curate"]["sources"][0]["max_rows"] = 20

    def chosen() -> set[str]:
        run(recipe_here)
        tables = [read_table(CURATED / "pairs" / f"{split}.parquet") for split in SPLITS]
        return {name for table in tables for name in table["id"].to_pylist()}

    first = chosen()
    write_sources(66)
    again = chosen()
    assert len(first) == len(again) == 20
    assert len(first & again) >= 14


@pytest.mark.slow
def test_the_stage_ends_with_the_message_alone(recipe_here: dict[str, Any], empty_store: Path) -> None:
    recipe_here["curate"]["sources"][2]["options"]["scale"] = 1000.0
    YAML(typ="safe").dump(recipe_here, Path("params.yaml"))
    shutil.copy(empty_store, "mlflow.db")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    process = subprocess.run(
        [sys.executable, "-m", "stages.curate"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert process.returncode == 1
    assert "simlex: expect_column_values_to_be_between(score_range): observed 0.01, expected" in process.stderr
    assert "Traceback" not in process.stderr
    assert not CURATED.exists()
    assert (REFUSED / "curated" / "scored" / "train.parquet").is_file()


def test_rejections_and_overlaps_are_metrics(recipe_here: dict[str, Any]) -> None:
    run(recipe_here)
    metrics = json.loads((CURATED / "metrics.json").read_text())
    assert metrics["rejected"]["wikipedia"] == {"document: empty": 1}
    assert metrics["rows"]["wikipedia"]["read"] == 61
    assert metrics["evaluation_overlap"].keys() == {"wikipedia", "wikipedia-topics", "simlex", "speeches"}


def test_a_test_set_that_train_repeats_stops_the_build(recipe_here: dict[str, Any]) -> None:
    """The same texts under other entities, all tested on: what they repeat is in train."""
    rows = [{"text": f"People of town {number} made it long ago.", "number": number} for number in range(60)]
    Path("data/sources/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    copy = source("copy", "documents", "rows.documents", "rows.jsonl", {"text": [2, 40]})
    copy |= {"options": {"text": "text", "entity": "number"}, "splits": {"dev": 0.0, "test": 1.0}}
    recipe_here["curate"]["sources"].append(copy)
    lines = refused(recipe_here)
    assert any(
        line.startswith("  copy: ") and "of its 60 test rows stand in train or dev too" in line for line in lines
    )
    rejected = read_table(REFUSED / "curated" / "rejected.parquet").to_pylist()
    reasons = {row["reason"] for row in rejected if row["source"] == "wikipedia"}
    assert "document: in the test rows of copy" in reasons
    assert read_table(REFUSED / "curated" / "documents" / "test.parquet").num_rows >= 60


def test_a_row_that_repeats_a_test_row_in_another_role_is_rejected(recipe_here: dict[str, Any]) -> None:
    """The questions that are tested on, labelled, in a source that trains on all of its rows."""
    rows = [{"text": f"Thing {number} is a thing of kind {number}.", "label": "AB"[number % 2]} for number in range(60)]
    Path("data/sources/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = source("labels", "labelled", "rows.labelled", "rows.jsonl", {"text": [2, 40]}, max_rejected_share=1.0)
    labels |= {"options": {"text": "text", "label": "label"}, "splits": {"dev": 0.0, "test": 0.0}}
    recipe_here["curate"]["sources"].append(labels)
    recipe_here["curate"]["evaluation_overlap"] |= {"max_share": 1.0}
    counts = run(recipe_here)
    tested = counts["wikipedia"]["test"]
    assert counts["labels"]["train"] == 60 - tested < 60
    reason = "text: in the test rows of wikipedia as query"
    metrics = json.loads((CURATED / "metrics.json").read_text())
    assert metrics["rejected"]["labels"] == {reason: tested}
    assert metrics["evaluation_overlap"]["wikipedia"] == 1.0
    assert reason.removeprefix("text") in (VALIDATED / "validation.html").read_text()


@pytest.mark.slow
def test_drift_is_told_against_the_version_before_and_changes_no_row(recipe_here: dict[str, Any]) -> None:
    run(recipe_here)
    first = files(CURATED)
    assert json.loads((VALIDATED / "validation.json").read_text())["drift"] == []
    write_sources(90)
    run(recipe_here)
    drift = {row["source"]: row for row in json.loads((VALIDATED / "validation.json").read_text())["drift"]}
    assert (drift["wikipedia"]["rows_before"], drift["wikipedia"]["rows"]) == (60, 90)
    assert "60</td><td>90</td>" in (VALIDATED / "validation.html").read_text()
    write_sources(60)
    run(recipe_here)
    assert files(CURATED) == first


def test_a_preview_shows_rows_and_reasons_and_writes_nothing(
    recipe_here: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_here["curate"]["sources"][0]["words"]["document"] = [2, 10]
    recipe_here["curate"]["sources"][2]["files"] = ["data/sources/none.tsv"]
    YAML(typ="safe").dump(recipe_here, Path("params.yaml"))
    with pytest.raises(ValueError, match="simlex: cannot be read; the reasons are above"):
        preview()
    shown = capsys.readouterr().out
    assert (
        "== wikipedia (pairs, en, MIT)\n  Thing 0 is a thing of kind 0. | People of town 0 made it long ago.\n" in shown
    )
    assert "Thing 9 is" in shown and "Thing 10 is" not in shown
    assert "rejected of the first 61 rows:\n     1 document: empty" in shown
    assert "== simlex: cannot be read: no file matches" in shown
    assert "label=A" in shown
    assert not Path("data/curated").exists() and not Path(".stillhouse").exists()
    preview("speeches")
    assert capsys.readouterr().out.count("== ") == 1
    with pytest.raises(
        ValueError, match=r"got \['speech'\], which are no sources of params.yaml; name some of \['wiki"
    ):
        preview("speech")


def test_lengths_in_tokens_and_test_texts_inside_longer_rows(recipe_here: dict[str, Any]) -> None:
    wikipedia = recipe_here["curate"]["sources"][0]
    del wikipedia["words"]
    wikipedia["tokens"] = {"query": [2, 40], "document": [2, 40]}
    texts = [f"Once it was said: people of town {number} made it long ago. Who knows?" for number in range(60)]
    Path("data/sources/rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    longer = source("longer", "documents", "rows.documents", "rows.jsonl", {"text": [2, 40]})
    longer |= {"options": {"text": "text"}, "splits": {"dev": 0.0, "test": 0.0}, "max_rejected_share": 1.0}
    recipe_here["curate"]["sources"].append(longer)
    recipe_here["curate"]["evaluation_overlap"] |= {"containment": 0.7, "max_share": 1.0}
    counts = run(recipe_here)
    metrics = json.loads((CURATED / "metrics.json").read_text())
    contained = metrics["rejected"]["longer"]["text: contains a test row of wikipedia"]
    assert contained == counts["wikipedia"]["test"] > 0
    assert metrics["evaluation_overlap"]["wikipedia"] == 1.0
    assert "Inside a longer text" in (VALIDATED / "validation.html").read_text()
    result = json.loads((VALIDATED / "validation.json").read_text())
    judged = {one["column"] for one in result["suites"][0]["expectations"]}
    assert {"query_tokens", "document_tokens"} <= judged and "query_words" not in judged
