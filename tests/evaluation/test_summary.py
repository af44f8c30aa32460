"""The headline: one short row of figures, the only file that DVC shows as metrics."""

from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from stages.evaluation.summary import HEADLINE, MAIN_SCORES, headline, size_summary, split, task_summary
from stages.metrics.bootstrap import Draws, Estimate

ROOT = Path(__file__).resolve().parents[2]


def figures_of_every_task() -> dict[str, Any]:
    adapters = dict.fromkeys(MAIN_SCORES) | {"unseen": "retrieval"}
    tasks = {
        task: {adapter or task: {"mean": {MAIN_SCORES[task]: 0.5, "other": 0.1}}} for task, adapter in adapters.items()
    }
    return tasks | {"summary": dict.fromkeys(HEADLINE.values(), 0.9) | {"clustering_over_base": 0.1}}


def test_the_headline_is_a_row_that_fits_a_screen() -> None:
    row = headline(figures_of_every_task())
    assert len(row) <= 16
    assert max(map(len, row)) <= 15
    assert row["text_matching"] == 0.5
    assert row["teacher_share"] == 0.9


def test_the_headline_leaves_out_what_the_recipe_does_not_evaluate() -> None:
    figures = figures_of_every_task()
    del figures["unseen"], figures["summary"]["long_needle_ndcg_at_1"]
    assert not {"unseen", "needle"} & headline(figures).keys()


def draws_of(task: str, *models: str) -> dict[str, dict[str, dict[str, Draws]]]:
    return {task: {model: {"source": Draws(0.5, np.full(10, 0.5))} for model in models}}


def test_a_task_that_is_not_measured_has_no_figures() -> None:
    measured = task_summary(draws_of("classification", "teacher", "base", "continued", "classification"))
    assert measured.keys() == {
        "classification_retention",
        "classification_over_base",
        "classification_over_continued",
    }
    assert size_summary(None, {"classification": {"float_megabytes": 51.0}}, [32, 64]) == {"model_megabytes": 51.0}


def test_dvc_shows_the_headline_alone() -> None:
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    metrics = {name: stage["metrics"] for name, stage in pipeline["stages"].items() if "metrics" in stage}
    assert metrics == {"evaluate": ["data/evaluated/metrics.json"]}
    assert "metrics" not in pipeline


def test_intervals_are_split_from_the_figures() -> None:
    found = split({"retrieval_retention": Estimate(0.9, 0.8, 1.0, 0.04), "model_megabytes": 69.0})
    assert found == {
        "summary": {"retrieval_retention": 0.9, "model_megabytes": 69.0},
        "intervals": {"retrieval_retention": {"low": 0.8, "high": 1.0, "p": 0.04}},
    }
