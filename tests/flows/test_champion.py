"""What a rebuild reads in MLflow's registry."""

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from flows.champion import Champion, read_champion
from flows.workspace import MLFLOW_LOCK
from stages.recipe.paths import MLFLOW


@pytest.mark.slow
def test_a_new_store_is_opened_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first client makes the schema; a rebuild beside a stage that does would else fail in the middle of it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = {"promote": {"registered_model": "toy"}}
    assert read_champion(tmp_path, recipe) is None, "no store is made to find nothing in it"
    (tmp_path / MLFLOW_LOCK).parent.mkdir()
    (tmp_path / MLFLOW).touch()
    found: list[Champion | None] = []
    reading = threading.Thread(target=lambda: found.append(read_champion(tmp_path, recipe)))
    with FileLock(tmp_path / MLFLOW_LOCK):
        reading.start()
        reading.join(timeout=5)
        assert reading.is_alive()
        assert (tmp_path / MLFLOW).stat().st_size == 0
    reading.join()
    assert found == [None]
    assert (tmp_path / MLFLOW).stat().st_size
