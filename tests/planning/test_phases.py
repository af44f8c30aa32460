"""Time and disk by hand; the table, and the plan beside what was measured."""

import dataclasses
from pathlib import Path

import pytest
import torch

from stages.planning import hardware as devices
from stages.planning.hardware import GPUS, Hardware, hardware
from stages.planning.measured import Measured, measured_stages
from stages.planning.memory import Memory
from stages.planning.phases import START_SECONDS, Disk, Phase, disk, phase
from stages.planning.report import comparison, disk_lines, memory_table, phase_table, sources_table
from stages.planning.steps import Totals
from stages.planning.texts import given_texts
from stages.tracking.runs import stage_run

DEVICE = Hardware("slow", {"float32": 100.0}, memory=1000.0, utilisation=0.5, source="made up")
MEMORY = Memory(400, 100, 200, 300)


def planned(stage: str, seconds: float) -> Phase:
    return Phase(stage, Totals(2, 30, 4e12, 5e12), seconds, 1, MEMORY)


def test_seconds_of_shared_and_of_repeated_work() -> None:
    shared, repeated = Totals(10, 100, 900, 1000), Totals(1, 10, 90, 100)
    one = phase("embed", shared, repeated, MEMORY, DEVICE, "float32", processes=4)
    assert one.work == Totals(11, 110, 990, 1100)
    assert one.seconds == START_SECONDS + (1000 / 4 + 100) / 50
    assert one.device_hours == pytest.approx(4 * one.seconds / 3600)


def test_disk_by_hand() -> None:
    found = disk(teacher_texts=10, teacher_dimensions=4, parameters=100, trained=[50, 5])
    assert found == Disk(teacher_store=10 * (4 * 2 + 16), models=100 * (8 * 4 + 4), checkpoints=55 * 12)
    assert found.total == 3 * 240 + 2 * 3600 + 660
    assert disk_lines(dataclasses.replace(found, teacher_store=2.0**31)).startswith("disk, about 6.0 GiB")


def test_the_table_says_what_does_not_fit_and_what_was_assumed() -> None:
    text = phase_table([planned("embed", 30.0), planned("distill", 7200.0)], DEVICE, "float32")
    assert "does not fit" not in text
    assert "50% are counted on" in text
    assert "made up" in text
    lines = text.splitlines()
    assert lines[-3].split() == ["embed", "2", "30", "4", "5", "30", "s", "0.00833", "0", "MiB"]
    assert lines[-1].split() == ["sum", "120", "min", "2.01"]
    small = dataclasses.replace(DEVICE, memory=999.0)
    assert phase_table([planned("embed", 30.0)], small, "float32").count("does not fit") == 1
    assert len(memory_table([planned("embed", 1.0)]).splitlines()) == 2
    assert "given, 80 tokens a text" in sources_table({"big": given_texts("big", 10, 80, 0.1, 0.1, ("text",))})


def test_a_plan_within_a_quarter_is_good() -> None:
    phases = [planned("embed", 100.0), planned("distill", 100.0)]
    text, good = comparison(phases, {"embed": Measured(110, {}), "distill": Measured(81, {})}, tolerance=0.25)
    assert good
    assert "0.91" in text
    text, good = comparison(phases, {"embed": Measured(50, {})}, tolerance=0.25)
    assert not good
    assert "over 25% off" in text
    assert text.splitlines()[-1].split() == ["distill", "100s", "none"]
    text, good = comparison(phases, {"embed": Measured(50, {"reused": 7.0})}, tolerance=0.25)
    assert good
    assert "not judged: 7 texts had their vectors already" in text


def test_seconds_come_from_the_stages_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(FileNotFoundError, match="no finished stage to check the plan against"):
        measured_stages(tmp_path / "data/lineage", uri)
    with stage_run("adapt@retrieval", {"name": "toy", "seed": 1}, inputs=[]) as run:
        run.log_metrics({"reused": 3.0})
    found = measured_stages(tmp_path / "data/lineage", uri)
    assert found["adapt@retrieval"].metrics == {"reused": 3.0}
    assert 0 <= found["adapt@retrieval"].seconds < 60


def test_devices_of_the_table_and_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware("h100", "bfloat16", 8, None) is GPUS["h100"]
    assert hardware("l4", "bfloat16", 8, 0.5).utilisation == 0.5
    assert (
        hardware("cpu", "float32", 4, None).peak["float32"] == 2 * hardware("cpu", "float32", 2, None).peak["float32"]
    )
    monkeypatch.setattr(devices, "gemm_peak", lambda device, precision: 7e9 if precision is torch.float32 else 1.0)
    threads = torch.get_num_threads()
    try:
        here = hardware("here", "float32", 1, None)
    finally:
        torch.set_num_threads(threads)
    assert here.peak == {"float32": 7e9}
    assert here.memory > 2**30
