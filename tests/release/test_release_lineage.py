"""Lineage of a release: code, data and runs."""

from pathlib import Path

import pytest

from stages.release.release_lineage import lineage, lineage_faults, lock_digest, run_ids
from stages.tracking.lineage import write_lineage

LOCK = """
schema: '2.0'
stages:
  curate:
    cmd: c
    outs: [{path: data/curated, md5: a}, {path: data/validated, md5: %s}]
  distill:
    cmd: d
    outs: [{path: data/distilled, md5: a}, {path: data/lineage/distill.json, md5: %s}]
  adapt@clustering:
    cmd: a
    outs: [{path: data/adapted/clustering, md5: %s}]
  evaluate:
    cmd: %s
    outs: []
"""


def test_the_lock_counts_as_far_as_it_made_the_weights(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    assert lock_digest(lock, ["distill"]) is None

    def digest(*values: str) -> str | None:
        lock.write_text(LOCK % values)
        return lock_digest(lock, ["curate", "distill", "adapt"])

    first = digest("today", "run1", "b", "e")
    assert digest("tomorrow", "run2", "b", "other") == first, "neither times and runs nor later stages count"
    assert digest("today", "run1", "c", "e") != first


def test_runs_of_later_stages_are_of_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in ("distill", "adapt@clustering", "evaluate"):
        write_lineage(stage, {"stage": stage, "run_id": f"of {stage}"})
    expected = {"adapt@clustering": "of adapt@clustering", "distill": "of distill"}
    assert run_ids(("distill", "adapt", "quantize")) == expected


def test_a_lineage_is_whole_and_follows_the_recipe(tmp_path: Path) -> None:
    facts = {
        "name": "demo",
        "license": "MIT",
        "teacher": {"path": "t", "license": "MIT"},
        "sources": [{"name": "s", "license": "MIT"}],
    }
    one, other = (lineage(facts, {"seed": seed}, tmp_path / "dvc.lock", ["distill"]) for seed in (1, 2))
    assert lineage_faults(one) == []
    assert one["recipe_sha256"] != other["recipe_sha256"]
    assert lineage_faults(one | {"sources": []}) == ["lineage.json: sources is empty"]
