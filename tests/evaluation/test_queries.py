"""Queries to read: where each finds its document, the worst of them, and those that moved most."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages import promote
from stages.corpus.tables import SCHEMAS, write_table
from stages.evaluation.evidence import Evidence
from stages.evaluation.queries import LENGTH, moved_queries, query_ranks, shortened, worst_queries
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean
from stages.recipe.recipe import read
from stages.registry import release_figures

ROOT = Path(__file__).resolve().parents[2]
# Rows: queries; columns: similarities to documents 0 to 3. With the unit matrix as documents, a query is its own row.
OURS = [[0.9, 0.1, 0.2, 0.3], [0.8, 0.1, 0.5, 0.6], [0.0, 0.7, 0.7, 0.1], [0.0, 0.9, 0.1, 0.5]]
BASE = [[0.9, 0.1, 0.2, 0.3], [0.1, 0.8, 0.5, 0.6], [0.9, 0.8, 0.7, 0.1], [0.3, 0.2, 0.1, 0.0]]


@pytest.fixture
def curated(tmp_path: Path) -> Path:
    origin = {"entity": "", "source": "faq", "language": "en", "license": "MIT"}
    rows = [{"id": str(row), "query": f"query {row}", "document": f"document {row}", **origin} for row in range(4)]
    write_table(tmp_path / "pairs/test.parquet", rows, SCHEMAS["pairs"])
    return tmp_path


def vectors(queries: list[list[float]]) -> dict[str, dict[str, np.ndarray]]:
    return {"faq": {"query": np.array(queries, dtype=np.float16), "document": np.eye(4, dtype=np.float16)}}


def test_places_are_those_of_the_search_and_of_equals_the_first_stands_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.evaluation.queries.CHUNK_SIZE", 10)  # two queries at once
    found = query_ranks(np.array(OURS), np.eye(4))
    assert found.ranks.tolist() == [1, 4, 2, 2]
    assert found.first.tolist() == [0, 0, 1, 1]
    drawn = np.random.default_rng(1).normal(size=(2, 30, 4))
    ranked = rank(*drawn, 30)[0]
    found = query_ranks(*drawn)
    assert found.first.tolist() == ranked[:, 0].tolist()
    np.testing.assert_allclose(found.gains, ndcg_at_10(ranked, [{row} for row in range(30)]))
    assert (found.gains == 0).any()


def test_the_worst_come_first_with_what_stood_before_their_document(curated: Path) -> None:
    found = worst_queries(curated, vectors(OURS))["faq"]
    assert (found["queries"], found["missed"]) == (4, 0)
    shown = [(row["rank"], row["query"], row["document"], row["instead"]) for row in found["worst"]]
    assert shown == [
        (4, "query 1", "document 1", "document 0"),
        (2, "query 2", "document 2", "document 1"),
        (2, "query 3", "document 3", "document 1"),
    ]  # query 0 finds its document first


def test_what_moved_most_comes_first_with_what_was_wrong_about_it(curated: Path) -> None:
    found = moved_queries(curated, vectors(OURS), vectors(BASE))["faq"]
    improved, fell = (
        [(row["before"], row["rank"], row["query"], row["instead"]) for row in found[name]]
        for name in ("improved", "fell")
    )
    # Ranks 4 to 2 are 0.43 to 0.63, 3 to 2 are 0.5 to 0.63, 1 to 4 are 1 to 0.43.
    assert improved == [(4, 2, "query 3", "document 0"), (3, 2, "query 2", "document 0")]
    assert fell == [(1, 4, "query 1", "document 0")]
    assert moved_queries(curated, vectors(OURS), vectors(OURS)) == {"faq": {"improved": [], "fell": []}}


def test_of_equal_gains_the_longer_way_is_shown(tmp_path: Path) -> None:
    origin = {"entity": "", "source": "faq", "language": "en", "license": "MIT"}
    rows = [{"id": str(n), "query": f"query {n}", "document": f"document {n}", **origin} for n in range(40)]
    write_table(tmp_path / "pairs/test.parquet", rows, SCHEMAS["pairs"])
    ours, other = np.eye(40), np.eye(40)
    for query, better in ((0, 11), (1, 30)):  # so many documents stand before its own
        other[query, -better:] = 2
    sides = [{"faq": {"query": queries, "document": np.eye(40)}} for queries in (ours, other)]
    improved = moved_queries(tmp_path, *sides)["faq"]["improved"]
    assert [(row["before"], row["rank"]) for row in improved] == [(31, 1), (12, 1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\n two  ", "one two"),
        ("word " * 60, ("word " * (LENGTH // 5)).strip() + "\u2026"),
        ("\u8336" * 200, "\u8336" * LENGTH + "\u2026"),
    ],
)
def test_a_text_is_cut_between_words_where_there_are_any(text: str, expected: str) -> None:
    assert shortened(text) == expected
    assert len(shortened(text)) <= LENGTH + 1


def test_the_report_shows_what_moved_since_the_champion_where_its_rows_are_ours(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {"new": vectors(OURS)["faq"]}
    outcomes = {"retrieval": {"retrieval": {"faq": Mean(np.ones(4))}}}
    ours = Evidence(outcomes, vectors(OURS) | new, {"retrieval": {"faq": "same", "new": "ours"}})
    theirs = Evidence(outcomes, vectors(BASE) | new, {"retrieval": {"faq": "same", "new": "theirs"}})
    shown = {source: {"queries": 4, "missed": 0, "worst": []} for source in ("faq", "new")}
    report = {"metrics": {}, "curves": {}, "about": {"name": "tiny", "queries": shown}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr(promote, "REPORT", tmp_path / "report.json")
    monkeypatch.setattr(promote, "PROMOTED", tmp_path)
    monkeypatch.setattr(release_figures, "CURATED", curated)
    monkeypatch.setattr(release_figures, "champion_evidence", lambda champion: theirs)
    champion: Any = SimpleNamespace(version=7)
    assert set(release_figures.champion_queries(ours, champion)) == {"faq"}
    promote.write_report(read(ROOT / "tests/recipes/tiny.yaml"), [], ours, champion)
    html = (tmp_path / "report.html").read_text()
    assert "promote.signoff" in html, "as it is judged by now"
    assert [html.count(f"{moved} most, compared with champion 7") for moved in ("Improved", "Fell")] == [1, 1]
