"""One stage under DVC: what runs, what is tried again, what is stopped, what a log shows."""

import json
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import filelock
import psutil
import pytest

from flows import stage_task as stage_module
from flows.failure_causes import Fault
from flows.pipeline import Needs, Stage
from flows.process_group import Stopped
from flows.stage_task import (
    Attempt,
    RebuildSettings,
    StageFailed,
    failures_folder,
    run_once,
    run_with_retries,
    stage_environment,
    usable_devices,
)
from stages.tracking.failure_report import described

CURATE = Stage("curate", (), Needs("cpu-heavy", None, reads_sources=True), ("data/sources new",))
RETRIEVAL = Stage("adapt@retrieval", ("curate",), Needs("gpu", "engine.processes", reads_sources=False), ())


@pytest.fixture
def settings(project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> RebuildSettings:
    """Settings for the project itself, with a curated file for the adapters."""
    monkeypatch.setattr(stage_module, "get_run_logger", lambda: logging.getLogger("stage"))
    caplog.set_level(logging.INFO, "stage")
    (project / "data/curated.txt").write_text("good\n")
    return RebuildSettings(
        project, "one", {"engine": {"processes": 2}}, frozenset(), (), project / "locks", None, has_remote=False
    )


def test_a_stage_killed_by_a_signal_is_tried_again_and_shows_no_secret(
    settings: RebuildSettings, project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage_module, "PAUSES", {Fault.LOST: (0.0,)})
    monkeypatch.setenv("STORE_PASSWORD", "open-sesame")
    (project / "retrieval.sh").write_text("echo open-sesame; [ -e lost ] || { touch lost; kill -9 $$; }\n")
    assert run_with_retries(RETRIEVAL, settings, ("1", "3"))
    assert "temporary failure (lost): trying again in 0 s" in caplog.text
    assert "devices 1,3" in caplog.text
    assert "open-sesame" not in caplog.text
    assert (project / "data/retrieval.txt").read_text() == "good\n"


def test_a_stage_that_fails_for_good_is_not_tried_again(settings: RebuildSettings, project: Path) -> None:
    (project / "data/sources/source.txt").write_text("bad\n")
    with pytest.raises(StageFailed, match=r"'curate' failed with exit code 255\. The checkout is untouched") as failed:
        run_with_retries(CURATE, settings, ())
    assert failed.value.fault is Fault.FINAL
    assert f"{project}/.stillhouse/refused/" in str(failed.value)
    assert "failed to reproduce 'curate'" in str(failed.value)


def test_a_stage_over_its_limit_is_stopped(settings: RebuildSettings, project: Path) -> None:
    (project / "retrieval.sh").write_text("sleep 600\n")
    before = set(psutil.Process().children(recursive=True))  # other tests' server
    with pytest.raises(
        StageFailed, match=r"'adapt@retrieval' took longer than 0\.001 h \(stage_hours\) and was stopped"
    ):
        run_once(RETRIEVAL, replace(settings, limit=3.6), ())
    assert set(psutil.Process().children(recursive=True)) <= before


def failed_attempt(stage: Stage, settings: RebuildSettings, error: Exception) -> Attempt:
    """An attempt whose process reported an exception."""
    folder = failures_folder(stage, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one.json").write_text(json.dumps(described(error)), encoding="utf-8")
    return Attempt(ran=True, dvc_exit_code=1, tail=(str(error),))


def test_a_stage_is_not_tried_again_once_the_rebuild_has_to_end(
    settings: RebuildSettings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def attempt(*_: object) -> Attempt:
        stop.set()
        return failed_attempt(RETRIEVAL, settings, ConnectionError("refused"))

    monkeypatch.setattr(stage_module, "STOP", stop)
    monkeypatch.setattr(stage_module, "run_once", attempt)
    with pytest.raises(Stopped, match="before another try of adapt@retrieval"):
        run_with_retries(RETRIEVAL, settings, ())


def test_a_stage_that_waits_for_another_process_gives_up_at_its_limit(
    settings: RebuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def attempt(*_: object) -> Attempt:
        tries.append(1)
        return failed_attempt(RETRIEVAL, settings, filelock.Timeout("another process writes to .stillhouse/vectors"))

    monkeypatch.setattr(stage_module, "run_once", attempt)
    monkeypatch.setattr(stage_module, "BUSY_PAUSE", 0.01)
    with pytest.raises(StageFailed, match="another process writes to"):
        run_with_retries(RETRIEVAL, replace(settings, limit=0.035), ())
    assert len(tries) == 5


def test_a_stage_uses_gpus_by_processes_and_cores_by_threads(
    settings: RebuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "cores", lambda: ("cpu-0", "cpu-1", "cpu-2", "cpu-3"))

    def wanted(stage: Stage, devices: tuple[str, ...], **recipe: object) -> tuple[tuple[str, ...], int]:
        return usable_devices(stage, replace(settings, devices=devices, recipe=recipe))

    gpus = ("0", "1", "2", "3", "4", "5", "6", "7")
    assert wanted(RETRIEVAL, gpus, engine={"processes": 8}) == (gpus, 8)
    assert wanted(RETRIEVAL, (), engine={"processes": 1, "threads": 3}) == (stage_module.cores(), 3)
    assert wanted(RETRIEVAL, (), engine={"processes": 2, "threads": 3}) == (stage_module.cores(), 4)
    embed = Stage("embed", (), Needs("gpu", "embed.ray.workers", reads_sources=False), ())
    assert wanted(embed, gpus, embed={"ray": {"workers": 4}}) == (gpus, 4)
    assert wanted(embed, gpus, embed={"ray": None}) == (gpus, 1)
    assert wanted(CURATE, gpus, engine={"threads": 2}) == (stage_module.cores(), 2)
    assert wanted(Stage("check", (), Needs(None, None, reads_sources=False), ()), gpus) == ((), 0)
    monkeypatch.setenv("STILLHOUSE_MACHINES", "2")
    assert wanted(RETRIEVAL, gpus, engine={"processes": 16}) == (gpus, 8)
    assert wanted(embed, gpus, embed={"ray": {"workers": 16}}) == (gpus, 8)
    assert wanted(embed, gpus, embed={"ray": {"workers": 4}}) == (gpus, 4)
    assert wanted(embed, (), embed={"ray": {"workers": 2}}, engine={"threads": 1}) == (stage_module.cores(), 2)


def test_a_stage_finds_this_interpreter_first_and_its_devices(settings: RebuildSettings) -> None:
    environment = stage_environment(RETRIEVAL, settings, ("1", "3"))
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["STILLHOUSE_BUILD"] == "one"
    assert not list(Path(environment["STILLHOUSE_FAILURES"]).iterdir())
    assert environment["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert "CUDA_VISIBLE_DEVICES" not in {*stage_environment(RETRIEVAL, settings, ("cpu-0",))} - {*os.environ}
