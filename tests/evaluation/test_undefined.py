"""Undefined figures are null in JSON, have a reason wherever they are read, and pass no gate."""

import json
from typing import Any

import numpy as np
import pytest

from stages.evaluation import comparison, summary
from stages.evaluation.gates import judge
from stages.evaluation.tasks import Score
from stages.evaluation.undefined import NO_INTERVAL, undefined_figures, with_nulls
from stages.metrics.row_outcomes import Partition, RankCorrelation, RowOutcomes, figure
from stages.recipe.promote import Gate
from stages.registry.outcome import verdict_tags
from stages.registry.release_figures import evaluated_figures
from stages.reporting.report import render_report

METRICS = {"text-matching": "spearman", "clustering": "v_measure"}
MODELS = ("teacher", "static", "base", "continued")


def figures_of(task: str, ours: RowOutcomes, other: RowOutcomes) -> dict[str, Any]:
    """The content of figures.json with an adapter's outcomes and those of every other model."""
    by_model = dict.fromkeys(MODELS, other) | {task: ours}
    scores = {name: {"own": Score({METRICS[task]: figure(rows)}, rows)} for name, rows in by_model.items()}
    draws = {task: comparison.draws(comparison.outcomes(scores), 1, 200)}
    figures: dict[str, Any] = {task: comparison.figures(scores)}
    figures["comparisons"] = {task: comparison.comparisons(draws[task], task)}
    return dict(with_nulls(figures | summary.split(summary.task_summary(draws))))


@pytest.fixture
def constant_base() -> dict[str, Any]:
    """Text matching in which every model but the adapter finds all pairs equally similar."""
    people = np.arange(40.0)
    return figures_of("text-matching", RankCorrelation(people, people), RankCorrelation(np.ones(40), people))


def test_undefined_figures_are_null_and_told_with_their_reason(constant_base: dict[str, Any]) -> None:
    json.dumps(constant_base, allow_nan=False)
    assert constant_base["text-matching"]["base"]["mean"]["spearman"] is None
    assert constant_base["summary"]["text_matching_retention"] is None
    assert undefined_figures(constant_base) == [
        "text-matching, own: spearman of teacher, static, base, continued is undefined: all of the model's "
        "similarities, or all scores of people, are equal.",
        "text_matching_retention is undefined, and passes no gate: the score of which it is a share is undefined or "
        "not above 0.",
        "text_matching_over_base is undefined, and passes no gate: one of the scores behind it is undefined.",
        "text_matching_over_continued is undefined, and passes no gate: one of the scores behind it is undefined.",
    ]


def test_undefined_figures_pass_no_gate_and_are_no_tags(constant_base: dict[str, Any]) -> None:
    gates = {"text_matching_retention": Gate(min=0.1), "text_matching_over_base": Gate(low=-1.0)}
    verdicts = judge(evaluated_figures(constant_base), gates)
    assert [verdict.word for verdict in verdicts] == ["refused", "refused"]
    assert verdicts[0].sentence == (
        "text_matching_retention is undefined: the score of which it is a share is undefined or not above 0, not >= 0.1"
    )
    tags = verdict_tags("enabled", constant_base["summary"], verdicts)
    assert not [name for name in tags if name.startswith("metric.")]
    assert "text_matching" in summary.headline(constant_base)
    del constant_base["text-matching"]["text-matching"]["mean"]["spearman"]
    constant_base["text-matching"]["text-matching"]["mean"]["spearman"] = None
    assert "text_matching" not in summary.headline(constant_base)


def test_the_report_shows_undefined_figures_and_says_why(constant_base: dict[str, Any]) -> None:
    verdicts = judge(evaluated_figures(constant_base), {"text_matching_retention": Gate(min=0.1)})
    about = {"notes": undefined_figures(constant_base), "gates": [one.as_dict() for one in verdicts], "mode": "enabled"}
    html = render_report(constant_base, {}, about)
    assert "spearman of teacher, static, base, continued is undefined" in html
    assert "is undefined (undefined: the score of which it is a share" in html


def test_few_rows_of_a_second_label_have_a_figure_without_an_interval() -> None:
    labels = np.array([1] + [0] * 9)
    ours, other = Partition(labels[None], labels), Partition(np.arange(10)[None] % 2, labels)
    figures = figures_of("clustering", ours, other)
    assert figures["summary"]["clustering_over_base"] > 0
    assert figures["intervals"]["clustering_over_base"]["low"] is None
    assert f"clustering_over_base: {NO_INTERVAL}." in undefined_figures(figures)
    (verdict,) = judge(evaluated_figures(figures), {"clustering_over_base": Gate(low=-1.0)})
    assert verdict.word == "refused"
    assert "undefined to undefined" in verdict.sentence
