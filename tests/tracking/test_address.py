"""A checkout records into its own store, whatever its path is called."""

import shutil
from pathlib import Path

import pytest

from flows.champion import mlflow_client
from stages.recipe.paths import store_address
from stages.tracking.runs import StageRun, stage_run

RECIPE = {"name": "tiny", "seed": 7}


@pytest.mark.parametrize("name", ["what?", "a#b %2F;c&d=e ü"])
def test_a_stage_and_the_flow_use_the_store_of_a_checkout_of_any_name(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / name
    (home / ".stillhouse").mkdir(parents=True)
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STILLHOUSE_BUILD", "one")
    shutil.copy(empty_store, "mlflow.db")
    Path("curve.csv").write_text("a")
    with stage_run("curate", RECIPE, []) as run:
        run.log_artifact(Path("curve.csv"))
        assert isinstance(run, StageRun)
    assert mlflow_client(home).get_run(run.run_id).info.status == "FINISHED"
    assert len(list(home.glob("mlruns/tiny/*/artifacts/curve.csv"))) == 1
    assert {one.name for one in tmp_path.iterdir()} == {name}


def test_a_store_elsewhere_with_a_question_mark_in_its_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected none with `\?`"):
        store_address(tmp_path / "what?/mlflow.db")
