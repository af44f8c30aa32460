"""The rebuild's page: what was stale and why, the gates, the figures against the champion's."""

import pytest

from flows.champion import Champion, links
from flows.pipeline import Needs, Stage
from flows.rebuild_page import page, table
from flows.stage_task import StageResult
from stages.recipe.redaction import redacted

LIGHT = Needs(None, None, reads_sources=False)
STAGES = [
    Stage("curate", (), LIGHT, ("params.yaml: seed modified", "changed command")),
    Stage("embed", ("curate",), LIGHT, ()),
]
RESULTS = [StageResult("curate", "run", 0.52), StageResult("embed", "run", 61.0, ("0", "1"))]
VERSION = {
    "name": "tiny",
    "version": "3",
    "aliases": ["challenger"],
    "validation_status": "refused",
    "run_id": "abc",
    "gates": [{"metric": "retention", "figure": 0.5, "limit": ">= 0.85", "verdict": "refused"}],
}


def test_the_page_of_a_finished_rebuild(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:password@mlflow:5000/")
    champion = Champion("2", {"retention": 0.7, "gone": 1.0})
    text = page(
        "2 of 2 stages ran", STAGES, RESULTS, {"embed": 0.0175}, VERSION, {"retention": 0.5, "new": 0.1}, champion
    )
    assert text.splitlines() == [
        "2 of 2 stages ran",
        "",
        "## Stages",
        "",
        "| stage | outcome | seconds | planned device-hours | devices | why |",
        "| --- | --- | ---: | ---: | --- | --- |",
        "| curate | run | 0.5 |  |  | params.yaml: seed modified; changed command |",
        "| embed | run | 61.0 | 0.0175 | 0, 1 | curate ran |",
        "",
        "## tiny version 3: refused (challenger)",
        "",
        "| gate | figure | limit | verdict |",
        "| --- | ---: | --- | --- |",
        "| retention | 0.5000 | >= 0.85 | refused |",
        "",
        "[version 3](http://mlflow:5000/#/models/tiny/versions/3)"
        " · [run and report](http://mlflow:5000/#/runs/abc/artifacts)",
        "",
        "## Against the champion, version 2",
        "",
        "| figure | champion | now | difference |",
        "| --- | ---: | ---: | ---: |",
        "| retention | 0.7000 | 0.5000 | -0.2000 |",
    ]


def test_without_a_server_there_are_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert links(VERSION) == []


def test_without_a_champion_the_page_says_so() -> None:
    assert page("done", STAGES, RESULTS, {}, None, {"retention": 0.5}).endswith(
        "There was no champion to compare with."
    )


def test_the_table_has_a_row_a_stage() -> None:
    assert table(RESULTS, {"embed": 0.0175})[1] == {
        "stage": "embed",
        "outcome": "run",
        "seconds": 61.0,
        "planned device-hours": "0.0175",
        "devices": "0, 1",
    }


def test_secrets_are_stars() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "HOME": "/home/worker", "SHORT_TOKEN": "abc"}
    line = "abc /home/worker wJalrXUtnFEMI from postgresql://user:pw@db/x"
    assert redacted(line, environment) == "abc /home/worker *** from postgresql://***@db/x"
