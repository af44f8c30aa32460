"""What curation found, as figures: each in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.evaluation.data_gates import data_figures, mteb_figures
from stages.evaluation.gates import Figure, judge
from stages.recipe.promote import Gate


def figures(
    folder: Path, unmet: list[str], overlaps: dict[str, float], licenses: list[str | None], allowed: Any, success: bool
) -> dict[str, Figure]:
    expectations = [{"expectation": one, "success": False} for one in unmet] + [{"expectation": "met", "success": True}]
    validation = {"success": success, "suites": [{"source": "faq", "expectations": expectations}]}
    (folder / "validation.json").write_text(json.dumps(validation))
    (folder / "metrics.json").write_text(json.dumps({"evaluation_overlap": overlaps}))
    lineage = {"sources": [{"name": f"s{at}", "license": one} for at, one in enumerate(licenses)]}
    return data_figures(folder, folder, lineage, allowed)


def test_clean_data_gives_zeros(tmp_path: Path) -> None:
    found = figures(tmp_path, [], {"a": 0.0, "b": 0.01}, ["MIT", "Apache-2.0"], None, success=True)
    assert {name: one.value for name, one in found.items()} == {
        "validation_failures": 0.0,
        "evaluation_overlap": 0.01,
        "licenses_not_allowed": 0.0,
    }
    assert found["evaluation_overlap"].note == "b"


@pytest.mark.parametrize(("allowed", "refused"), [(None, "s2, s3"), (["MIT"], "s1, s2, s3")])
def test_faults_are_counted_and_named(tmp_path: Path, allowed: list[str] | None, refused: str) -> None:
    found = figures(tmp_path, ["unique", "not_null"], {}, ["MIT", "GPL-3.0", None, ""], allowed, success=False)
    assert found["validation_failures"] == Figure(2.0, note="faq: unique, faq: not_null")
    assert found["licenses_not_allowed"] == Figure(float(len(refused.split())), note=refused)
    assert found["evaluation_overlap"].value == 0.0


def test_rows_refused_for_another_reason_are_a_failure_too(tmp_path: Path) -> None:
    assert figures(tmp_path, [], {}, ["MIT"], None, success=False)["validation_failures"].value == 1.0


def test_the_task_of_mteb_that_was_trained_on_most_is_named() -> None:
    assert mteb_figures({"SciFact": 0.125, "STS12": 0.0}) == {"mteb_overlap": Figure(0.125, note="SciFact")}
    (verdict,) = judge(mteb_figures({}), {"mteb_overlap": Gate(max=0.0)})
    assert verdict.word == "not applicable"
