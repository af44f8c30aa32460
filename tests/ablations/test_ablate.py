"""Ablations as they are run: two variants of one claim in a project of its own, and the plan and report of many."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.ablations import ablate, claims
from tests.ablations.comparison import Difference
from tests.checkouts import ROOT, checkout, run, short_recipe

TINY = """
num_resamples: 100
seconds: {distill: 10, adapter: 20, joint: 40, score: 5, start: 1}
common: {}
variants:
  texts: {subject: student, set: {}}
  pairs:
    subject: student
    set:
      distill.objective: info_nce
      distill.training.batch_tokens: null
      distill.training.batch_size: 8
claims:
  objective:
    says: Distillation is above InfoNCE
    source: figure 3
    comparisons: [{above: texts ndcg, below: pairs ndcg, paper: above}]
"""


def run_ablate(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    files = ("--claims", "tiny.yaml", "--output", "table.md")
    return run(project, sys.executable, "-m", "tests.ablations.ablate", *files, *arguments, check=check)


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage ")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a still smaller recipe than the tiny one, nothing built."""
    recipe = short_recipe()
    recipe["curate"]["sources"] = [source | {"max_rows": 80} for source in recipe["curate"]["sources"]]
    recipe["distill"]["training"] |= {"steps": 3, "evaluate_every": 3, "checkpoint_every": 3}
    recipe["distill"]["continued_steps"] = 1
    folder = checkout(tmp_path_factory.mktemp("project"), recipe)
    shutil.copytree(ROOT / "tests/ablations", folder / "tests/ablations", ignore=shutil.ignore_patterns("test_*"))
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    run(folder, "git", "add", "--all")
    run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--quiet", "-m", "ablations")
    return folder


@pytest.fixture(scope="module")
def ablated(project: Path) -> subprocess.CompletedProcess[str]:
    return run_ablate(project)


@pytest.mark.slow
def test_variants_share_what_they_have_in_common(ablated: subprocess.CompletedProcess[str]) -> None:
    ran = stages_run(ablated)
    assert [ran.count(one) for one in ("curate", "embed", "distill", "score-student@retrieval")] == [1, 1, 2, 2]
    assert "2 of 2 variants to run: about 1 min" in ablated.stdout
    assert "[2/2] pairs, about " in ablated.stdout


@pytest.mark.slow
def test_the_table_says_where_it_comes_from_and_what_came_out(
    project: Path, ablated: subprocess.CompletedProcess[str]
) -> None:
    table = (project / "table.md").read_text(encoding="utf-8")
    assert table in ablated.stdout
    assert "recipe stillhouse-tiny, seed 17, commit " in table
    assert "| Distillation is above InfoNCE | figure 3 | **" in table
    row = next(line for line in table.splitlines() if line.startswith("| texts ndcg over pairs ndcg | above | "))
    above, below = (float(word) for word in row.split("|")[3].split(" over "))
    assert 0 < above <= 100
    assert float(row.split("|")[4].split()[0]) == pytest.approx(above - below, abs=0.11)  # each is rounded


@pytest.mark.slow
def test_the_project_is_left_alone_but_for_its_experiments(
    project: Path, ablated: subprocess.CompletedProcess[str]
) -> None:
    assert ablated.returncode == 0
    assert run(project, "git", "status", "--porcelain").stdout.split() == ["??", "table.md"]
    assert not (project / "data/distilled").exists()
    assert not run(project, "git", "stash", "list").stdout
    listed = run(project, sys.executable, "-m", "dvc", "exp", "show", "--csv").stdout
    rows = {line.split(",")[0].rsplit("-", 1)[0]: line for line in listed.splitlines()}
    assert {"ablation-texts", "ablation-pairs"} <= rows.keys()
    assert "info_nce" in rows["ablation-pairs"]
    assert "embedding_distillation" in rows["ablation-texts"]


@pytest.mark.slow
def test_a_second_run_runs_what_is_missing(project: Path, ablated: subprocess.CompletedProcess[str]) -> None:
    assert ablated.returncode == 0
    table = (project / "table.md").read_text(encoding="utf-8")
    again = run_ablate(project)
    assert "0 of 2 variants to run" in again.stdout
    assert not stages_run(again)
    assert (project / "table.md").read_text(encoding="utf-8") == table
    kept = run(project, "git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").stdout.split()
    pairs = next(name for name in kept if name.startswith("ablation-pairs-"))
    run(project, sys.executable, "-m", "dvc", "exp", "remove", pairs)
    assert "1 of 2 variants to run" in run_ablate(project, "--list").stdout
    assert "distill" not in stages_run(run_ablate(project))  # that is in the run cache
    assert (project / "table.md").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_what_is_not_committed_is_refused(project: Path) -> None:
    recipe = project / "params.yaml"
    kept = recipe.read_text(encoding="utf-8")
    recipe.write_text(kept.replace("seed: 17", "seed: 18"), encoding="utf-8")
    refused = run_ablate(project, "--list", check=False)
    recipe.write_text(kept, encoding="utf-8")
    assert refused.returncode == 1
    assert "made of the last commit; commit or undo first:\n M params.yaml" in refused.stderr


@pytest.mark.slow
def test_a_claim_that_is_not_there_is_named(project: Path) -> None:
    refused = run_ablate(project, "--only", "colour", check=False)
    assert "error: --only colour: the claims are objective" in refused.stderr


def test_what_was_written_by_hand_stays(tmp_path: Path) -> None:
    output = tmp_path / "table.md"
    empty = ablate.hand_written(output)
    part = empty.replace("\n\n", "\n\nGOR helps little.\n\n")
    output.write_text(f"# Of an earlier day\n\n{part}\n| old table |\n", encoding="utf-8")
    assert ablate.hand_written(output) == part


@pytest.mark.parametrize("kept", ["", ablate.HAND_WRITTEN, ablate.GENERATED])
def test_a_table_without_both_markers_is_not_overwritten(tmp_path: Path, kept: str) -> None:
    output = tmp_path / "table.md"
    output.write_text(f"# Of an earlier day\n\n{kept}\n\nGOR helps little.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="got no part written by hand, expected the lines"):
        ablate.hand_written(output)


class Names:
    """In a clone's place: experiments are named, not run."""

    def name(self, variant: str, overrides: dict[str, Any]) -> str:
        return f"{variant} {len(overrides)}"


def test_time_is_foretold_once_for_what_variants_share() -> None:
    suite = claims.Suite.model_validate(YAML(typ="safe").load(TINY))
    short = {"distill.training.steps": 1}
    variants = {
        "stage-1": claims.Variant(subject="student", set={}),
        "short": claims.Variant(subject="student", set=short),
        "all": claims.Variant(subject="adapter", set={}),
        "one": claims.Variant(subject="adapter", set={**short, "adapt.retrieval.temperature": 0.1}),
        "joint": claims.Variant(subject="joint", set={}),
    }
    sides = [f"{name} ndcg" for name in variants] + ["joint accuracy"]
    comparisons = tuple(claims.Comparison(above=side, below="all ndcg", paper="") for side in sides)
    claim = claims.Claim(says="", source="", comparisons=comparisons)
    suite = suite.model_copy(update={"variants": variants, "claims": {"c": claim}})
    clone: Any = Names()
    plan = ablate.jobs(suite, ["c"], clone, "history")
    # A start and a score each; stage 1 once for `short` and `one`; what the project's build has made is there.
    assert {job.variant: job.seconds for job in plan} == {
        "stage-1": 1 + 5,
        "short": 1 + 5 + 10,
        "all": 1 + 5,
        "one": 1 + 5 + 20,
        "joint": 1 + 2 * 5 + 40,
    }
    assert plan[-1].targets == ["score-joint@classification", "score-joint@retrieval"]
    assert all(job.overrides["name"] == "history" for job in plan)


def test_a_claim_that_does_not_reproduce_is_reported_as_such() -> None:
    suite = claims.Suite.model_validate(YAML(typ="safe").load(TINY))
    one = suite.claims["objective"].comparisons[0]
    gaps = [Difference(-0.02, -0.03, -0.01), Difference(0.02, 0.01, 0.03), Difference(0.0, -0.01, 0.01)]
    text = ablate.report(suite, {"objective": [ablate.Row(one, 0.5, 0.52, gap) for gap in gaps]}, "# About\n")
    assert text.startswith("# About\n")
    assert "| Distillation is above InfoNCE | figure 3 | **does not agree** (1 of 3 agree) |" in text
    assert "| texts ndcg over pairs ndcg | above | 50.0 over 52.0 | -2.0 (-3.0 to -1.0) | does not agree |" in text
    assert "| +0.0 (-1.0 to +1.0) | unresolved |" in text
