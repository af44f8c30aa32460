"""Releases registered in a real MLflow registry: a SQLite file and a folder of artifacts."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages import params, promote
from stages.training.tracking import digest, tracking_uri

MODEL = "tiny-embedder"
GOOD = {"retention": 0.9, "binary_retention": 0.85}
BAD = {"retention": 0.5, "binary_retention": 0.85}
GATES = {"retention": {"min": 0.85}, "binary_retention": {"min": 0.8, "max": 1.0}}


@pytest.fixture
def project(tmp_path: Path, tiny_release: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder as the stages before promote leave it."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STILLHOUSE_BUILD", "one")
    shutil.copy(empty_store, "mlflow.db")
    shutil.copytree(tiny_release, "data/quantized/tiny")
    Path("data/curated").mkdir()
    Path("data/curated/pairs.parquet").write_bytes(b"rows")
    Path("data/evaluated").mkdir()
    Path("data/evaluated/report.html").write_text("<p>report</p>")
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  evaluate: {cmd: e}\n")
    yield tmp_path
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # set_tracking_uri leaves it behind
    mlflow.set_tracking_uri("")


def run_promote(
    monkeypatch: pytest.MonkeyPatch,
    summary: dict[str, float],
    signoff: str = "automatic",
    gates: dict[str, Any] = GATES,
) -> dict[str, Any]:
    """`python -m stages.promote` on a recipe of which only this stage's part matters."""
    section = params.Promote.model_validate({"registered_model": MODEL, "signoff": signoff, "gates": gates})
    recipe = SimpleNamespace(name="tiny", seed=1, promote=section)
    monkeypatch.setattr(params, "load", lambda: recipe)
    Path("data/evaluated/metrics.json").write_text(json.dumps({"summary": summary}))
    promote.main()
    version: dict[str, Any] = json.loads(Path("data/promoted/version.json").read_text())
    return version


def client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri())


def test_a_release_that_passes_is_registered_once_signed_off_and_served(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    version = run_promote(monkeypatch, GOOD)
    printed = capsys.readouterr().out
    assert version["aliases"] == ["challenger", "champion"]
    assert [gate["verdict"] for gate in version["gates"]] == ["passed", "passed"]
    assert "| retention        | 0.9000 | >= 0.85" in printed
    assert "MLFLOW_TRACKING_URI=sqlite:///mlflow.db" in printed

    tags = client().get_model_version(MODEL, "1").tags
    assert tags["validation_status"] == "passed"
    assert tags["metric.retention"] == "0.9"
    assert tags["gate.binary_retention"] == "passed: 0.85 (>= 0.8 and <= 1)"
    assert tags["release_digest"] == digest(Path("data/quantized/tiny")) == version["release_digest"]
    assert tags["data_digest"] == digest(Path("data/curated"))
    assert tags["dvc_lock"] == promote.lock_digest()
    lineage = json.loads(Path("data/lineage/promote.json").read_text())
    assert version["run_id"] == lineage["run_id"]
    assert tags["build_run_id"] == lineage["parent_run_id"]
    artifacts = {file.path for file in client().list_artifacts(lineage["run_id"])}
    assert artifacts >= {"report.html", "dvc.lock"}

    served = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    rows = np.asarray(served.predict(["a copper still", "malt"], params={"task": "clustering", "dimensions": 8}))
    assert rows.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)

    # The same release again, now judged by one gate less and refused by the other.
    again = run_promote(monkeypatch, BAD, gates={"retention": {"min": 0.85}})
    assert (again["version"], again["run_id"]) == ("1", version["run_id"])
    assert len(client().search_model_versions(f"name = '{MODEL}'")) == 1
    tags = client().get_model_version(MODEL, "1").tags
    assert tags["validation_status"] == "refused"
    assert tags["refused_because"] == "retention is 0.5, not >= 0.85"
    assert "gate.binary_retention" not in tags
    assert again["aliases"] == ["challenger", "champion"]
    assert "It was champion before, and still is" in capsys.readouterr().out

    # Another release takes over.
    Path("data/quantized/tiny/README.md").write_text("# another\n")
    other = run_promote(monkeypatch, GOOD)
    assert (other["version"], other["aliases"]) == ("2", ["challenger", "champion"])
    assert client().get_model_version(MODEL, "1").aliases == []


def test_a_refused_release_is_registered_but_never_champion(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = run_promote(monkeypatch, BAD)
    assert version["aliases"] == ["challenger"]
    assert version["validation_status"] == "refused"
    assert version["refused_because"] == ["retention is 0.5, not >= 0.85"]
    assert "REFUSED by its gates" in capsys.readouterr().out


def test_a_manual_sign_off_is_the_printed_command(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_promote(monkeypatch, GOOD, signoff="manual")["aliases"] == ["challenger"]
    printed = capsys.readouterr().out
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in printed
    (command,) = [line.strip() for line in printed.splitlines() if "set_registered_model_alias" in line]
    command = command.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, timeout=60)
    assert client().get_model_version_by_alias(MODEL, "champion").version in (1, "1")


def test_a_model_that_gives_no_unit_vectors_is_not_registered(project: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = Path("data/quantized/tiny/merged/clustering/model.safetensors")
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(weights).items()}
    save_file(broken, weights, metadata={"format": "pt"})
    run = client().create_run("0")
    with pytest.raises(RuntimeError, match=r"clustering of .* gives vectors of length"):
        promote.promote(
            registered_model=MODEL,
            signoff="automatic",
            gates={},
            summary=GOOD,
            release=Path("data/quantized/tiny"),
            run_id=run.info.run_id,
            parent_run_id=run.info.run_id,
        )
    assert client().search_registered_models() == []


def test_the_digest_of_the_lock_file_leaves_promote_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert promote.lock_digest() is None
    Path("dvc.lock").write_text("stages:\n  evaluate: {cmd: e}\n")
    before = promote.lock_digest()
    Path("dvc.lock").write_text("stages:\n  evaluate: {cmd: e}\n  promote: {cmd: p}\n")
    assert promote.lock_digest() == before
    Path("dvc.lock").write_text("stages:\n  evaluate: {cmd: other}\n")
    assert promote.lock_digest() != before
