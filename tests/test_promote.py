"""Releases judged and registered in a real MLflow registry: a SQLite file and a folder of artifacts."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages import promote
from stages.evaluation.champion_comparison import score_adapters
from stages.evaluation.compared_models import ReleasedModels
from stages.evaluation.evidence import Evidence, digests_of_tests, load_evidence
from stages.evaluation.gates import Figure
from stages.metrics.row_outcomes import Mean
from stages.recipe.paths import CURATED, PROMOTED
from stages.recipe.promote import Promote
from stages.recipe.recipe import Recipe
from stages.registry import store
from stages.registry.outcome import next_steps
from stages.registry.provenance import lock_digest
from stages.registry.registration import register
from stages.registry.release_figures import champion_figures, format_figures
from stages.tracking.digests import digest
from tests.conftest import write_curated, write_json

MODEL = "tiny-embedder"
RELEASE = Path("data/quantized/tiny")
MARGIN = {"low": -0.05}
BESIDE = ("retrieval", "text_matching", "classification", "clustering")
GATES: dict[str, Any] = {
    "retention": {"min": 0.85, "low": 0.8},
    "binary_retention": {"min": 0.8, "max": 1.0},
    "validation_failures": {"max": 0},
    "evaluation_overlap": {"max": 0.1},
    "licenses_not_allowed": {"max": 0},
    "served_cosine_min": {"min": 0.999},
    "index_compatibility": {"min": 0.95, "otherwise": "warn"},
    **{f"{task}_over_champion": MARGIN for task in BESIDE},
}


@pytest.fixture
def project(tmp_path: Path, evaluated: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder as the stages before promote leave it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STILLHOUSE_BUILD", "one")
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    shutil.copy(empty_store, "mlflow.db")
    summarise()
    yield tmp_path
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # set_tracking_uri leaves it behind
    mlflow.set_tracking_uri("")


def summarise(retention: float = 0.9) -> None:
    """What an evaluation found."""
    summary = {"retention": retention, "binary_retention": 0.85}
    intervals = {"retention": {"low": retention - 0.05, "high": retention + 0.05, "p": 0.01}}
    write_json(Path("data/evaluated/figures.json"), {"summary": summary, "intervals": intervals, "mteb_overlap": {}})


class Run:
    """A stage's run that is opened at once and records artifacts alone."""

    def __init__(self) -> None:
        self._client = store.registry()
        self.run_id = self.parent_run_id = self._client.create_run("0").info.run_id

    def log_metrics(self, metrics: dict[str, float]) -> None:
        pass

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(self.run_id, str(path), folder)


def recipe(**changes: Any) -> Recipe:
    """A recipe of which only this stage's part matters."""
    section = {
        "registered_model": MODEL,
        "mode": "enabled",
        "gates": GATES,
        "allowed_licenses": None,
        "signoff": "automatic",
        "approvals": 1,
        "signoff_hours": 1.0,
    }
    others: dict[str, Any] = {
        "engine": SimpleNamespace(threads=1, precision="float32"),
        "evaluate": SimpleNamespace(num_resamples=200),
    }
    promoting = Promote.model_validate(section | changes)
    return Recipe.model_construct(name="tiny", seed=1, promote=promoting, **others)


def submit(**changes: Any) -> dict[str, Any]:
    """What version.json says after the stage, under its own run of MLflow."""
    run: Any = Run()
    return promote.promote(recipe(**changes), run)[0]


def verdicts(version: dict[str, Any]) -> dict[str, str]:
    return {gate["metric"]: gate["verdict"] for gate in version["gates"]}


def change_release(text: str) -> None:
    """Another release of the same models."""
    (RELEASE / "README.md").write_text(text)


def weaken_evidence() -> None:
    """An evaluation in which half of the queries, which found their documents before, find nothing."""
    known = load_evidence(promote.EVIDENCE)
    of_words = known.outcomes["retrieval"]["retrieval"]["words"]
    assert isinstance(of_words, Mean)
    worse = Mean(np.where(np.arange(len(of_words)) % 2, of_words.scores, 0.0))
    outcomes = {**known.outcomes, "retrieval": {"retrieval": {"words": worse}}}
    Evidence(outcomes, known.vectors, known.tests).save(promote.EVIDENCE)


def test_a_release_is_judged_registered_signed_off_served_and_submitted_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote.main(recipe())
    version = json.loads(Path("data/promoted/version.json").read_text())
    printed = capsys.readouterr().out
    assert (version["aliases"], version["validation_status"]) == (["challenger", "champion"], "passed")
    found = verdicts(version)
    assert {name for name, word in found.items() if word == "not applicable"} == {
        "index_compatibility",
        *(f"{task}_over_champion" for task in BESIDE),
    }
    assert set(found.values()) == {"passed", "not applicable"}
    assert "| 0.9 (0.85 to 0.95)" in printed and "MLFLOW_TRACKING_URI=sqlite:///mlflow.db" in printed

    client = store.registry()
    tags = client.get_model_version(MODEL, "1").tags
    assert tags["validation_status"] == "passed"
    assert tags["metric.retention"] == "0.9"
    assert tags["gate.retention"] == "passed: 0.9 (0.85 to 0.95) (>= 0.85 and lower end >= 0.8)"
    assert tags["release_digest"] == digest(RELEASE) == version["release_digest"]
    assert (tags["data_digest"], tags["dvc_lock"]) == (digest(Path("data/curated")), lock_digest())
    assert tags["judged_against"] == "none"
    lineage = json.loads(Path("data/lineage/promote.json").read_text())
    assert version["run_id"] == tags["evidence_run_id"] == lineage["run_id"]
    artifacts = {file.path for file in client.list_artifacts(lineage["run_id"])}
    assert artifacts >= {"report.html", "dvc.lock", "evidence"}
    assert "There is no champion" in Path("data/promoted/report.html").read_text()

    served = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    rows = np.asarray(served.predict(["a copper still", "malt"], params={"task": "clustering", "dimensions": 8}))
    assert rows.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)

    # Yesterday's champion again: equal figures are not inferior, and nothing is registered twice.
    again = submit()
    assert (again["version"], again["run_id"], again["aliases"]) == ("1", version["run_id"], version["aliases"])
    assert set(verdicts(again).values()) == {"passed"}
    assert [gate["low"] for gate in again["gates"] if gate["metric"] == "retrieval_over_champion"] == [0.0]
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1
    assert "No re-index is due" in Path("data/promoted/report.html").read_text()

    # The same release, judged by other gates and figures: an earlier verdict's tags go, the champion stays.
    summarise(retention=0.5)
    other = submit(gates={"retention": {"min": 0.85}})
    tags = client.get_model_version(MODEL, "1").tags
    assert tags["refused_because"] == "retention is 0.5 (0.45 to 0.55), not >= 0.85"
    assert "gate.binary_retention" not in tags
    assert (other["validation_status"], other["aliases"]) == ("refused", ["challenger", "champion"])
    assert "stillhouse rollback" in next_steps(other, "sqlite:///mlflow.db", PROMOTED)


def test_another_release_is_held_against_the_champion(project: Path) -> None:
    submit()
    # The same models in another folder, scored on other test rows: the champion is scored again on those.
    change_release("# two")
    kept = load_evidence(promote.EVIDENCE)
    write_curated(Path("data/curated"), variant=1)
    sources = {task: list(of_task) for task, of_task in kept.tests.items()}
    scored = score_adapters(ReleasedModels(RELEASE / "merged", "float32"), CURATED, sources, 1)
    tests = digests_of_tests(CURATED, sources, 1)
    Evidence(scored.outcomes, scored.vectors, tests).save(promote.EVIDENCE)
    second = submit()
    assert (second["version"], second["aliases"]) == ("2", ["challenger", "champion"])
    assert set(verdicts(second).values()) == {"passed"}
    assert store.registry().get_model_version(MODEL, "2").tags["judged_against"] == "1"

    # Worse than the champion beyond the margin: refused, registered with the reasons, never champion.
    change_release("# three")
    weaken_evidence()
    third = submit()
    assert (third["version"], third["aliases"], third["validation_status"]) == ("3", ["challenger"], "refused")
    assert [name for name, word in verdicts(third).items() if word == "refused"] == ["retrieval_over_champion"]
    assert third["refused_because"][0].startswith("retrieval_over_champion is -")
    assert "REFUSED by its gates" in next_steps(third, "sqlite:///mlflow.db", PROMOTED)
    # A dry run says the same and refuses nothing.
    dry = submit(mode="dry_run")
    assert (dry["version"], dry["validation_status"]) == ("3", "would be refused")
    assert dry["aliases"] == ["challenger", "champion"]


def test_formats_that_disagree_with_torch_are_counted_and_named(tmp_path: Path) -> None:
    formats = {name: {"released": name != "onnx-int8"} for name in ("merged", "onnx", "onnx-int8")}
    write_json(tmp_path / "parity.json", {"formats": formats})
    assert format_figures(tmp_path) == {"formats_left_out": Figure(1, note="onnx-int8")}


def test_a_broken_tokenizer_is_refused(project: Path) -> None:
    tokenizer = RELEASE / "merged/retrieval/tokenizer.json"
    values = json.loads(tokenizer.read_text())
    words = values["model"]["vocab"]
    values["model"]["vocab"] = dict(zip(words, [*range(4), *reversed(range(4, len(words)))], strict=True))
    tokenizer.write_text(json.dumps(values))
    version = submit(signoff="human")
    assert verdicts(version)["served_cosine_min"] == "refused"
    assert (version["validation_status"], version["aliases"]) == ("refused", ["challenger"])


def test_people_are_told_what_to_do_and_disabled_gates_judge_nothing(project: Path) -> None:
    version = submit(signoff="human", mode="disabled")
    assert (version["validation_status"], version["gates"], version["aliases"]) == ("not judged", [], ["challenger"])
    printed = next_steps(version, "sqlite:///mlflow.db", PROMOTED)
    assert "stillhouse sign-off --version 1 --approve --name YOU --reason WHY" in printed
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in printed


def test_a_champion_that_cannot_be_read_refuses_the_comparison(project: Path) -> None:
    gone = SimpleNamespace(version="7", name=MODEL, tags={"evidence_run_id": "0" * 32})
    figures = champion_figures(load_evidence(promote.EVIDENCE), gone, recipe().engine, seed=1, num_resamples=200)
    assert set(figures) == {f"{task}_over_champion" for task in BESIDE} | {"index_compatibility"}
    for figure in figures.values():
        assert isinstance(figure, Figure)
        assert np.isnan(figure.value) and "not comparable with champion 7" in figure.note


def test_a_model_that_gives_no_unit_vectors_is_not_registered(project: Path) -> None:
    weights = RELEASE / "merged/clustering/model.safetensors"
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(weights).items()}
    save_file(broken, weights, metadata={"format": "pt"})
    client = store.registry()
    run = client.create_run("0")
    with pytest.raises(RuntimeError, match=r"clustering of .* gives vectors of length"):
        register(client, MODEL, RELEASE, run.info.run_id)
    assert client.search_registered_models() == []
