"""Gates against hand-made figures."""

import math

import pytest

from stages.metrics.gates import judge, refusals, table

SUMMARY = {"retention": 0.85, "loss": 0.3, "broken": math.nan}


def test_limits_are_inclusive_and_nan_passes_none() -> None:
    gates = {"retention": (0.85, None), "loss": (None, 0.2), "broken": (None, 1.0)}
    verdicts = judge(SUMMARY, gates)
    assert [one.word for one in verdicts] == ["passed", "refused", "refused"]
    assert refusals(verdicts) == ["loss is 0.3, not <= 0.2", "broken is nan, not <= 1"]


def test_a_gate_may_have_both_limits() -> None:
    (verdict,) = judge(SUMMARY, {"loss": (0.1, 0.4)})
    assert verdict.passed
    assert verdict.limit == ">= 0.1 and <= 0.4"


def test_a_gate_on_a_figure_that_is_not_there_is_an_error_with_the_names() -> None:
    with pytest.raises(ValueError, match=r"no figure named ndcg, recall; it has broken, loss, retention"):
        judge(SUMMARY, {"recall": (0.1, None), "ndcg": (0.1, None)})


def test_the_table_reads_in_a_terminal() -> None:
    assert table(judge(SUMMARY, {"retention": (0.8, None), "loss": (None, 0.2)})).splitlines() == [
        "| gate      | figure | limit  | verdict |",
        "|-----------|--------|--------|---------|",
        "| retention | 0.8500 | >= 0.8 | passed  |",
        "| loss      | 0.3000 | <= 0.2 | refused |",
    ]
