"""The command's answers: the tables, the same as JSON, what was measured, and messages."""

import json
from pathlib import Path

import pytest

from stages.planning import command
from stages.planning.command import OutOfReach, cost_table, plan
from stages.planning.costs import StageCost
from stages.planning.devices import Device
from stages.planning.measured import measured_seconds
from stages.recipe.recipe import read
from stages.tracking.runs import stage_run

TINY = Path(__file__).parents[1] / "recipes" / "tiny.yaml"
STAGES = ["embed", "distill", "extend", *(f"adapt@{task}" for task in ("retrieval", "text-matching", "clustering"))]
GIVEN = OutOfReach(rows=tuple(f"{source.name}=400" for source in read(TINY).curate.sources), tokens_per_text=20)
DEVICE = Device("slow", 1e12, 2.0**30, 0.5)


def planned(stage: str, seconds: float, memory: float = 2.0**20) -> StageCost:
    return StageCost(stage, 2, 30, 4e12, 5e12, seconds, seconds / 3600, {"weights": 0, "activations": memory})


def test_the_page_and_the_same_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    plan(TINY, device="a100", given=GIVEN)
    page = capsys.readouterr().out
    assert page.startswith("stillhouse-tiny, 1 process(es) on A100 SXM 80 GB: peak 19.5\nTFLOP/s in float32, 35%")
    assert "given, 20 tokens a text" in page
    plan(TINY, device="a100", utilisation=0.5, given=GIVEN, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["device"]["share"] == 0.5
    assert found["sources"]["simlex"] == {"train": 160, "dev": 40, "test": 200}
    stages = [phase["stage"] for phase in found["phases"]]
    assert stages == [*STAGES, "adapt@classification"]
    assert stages == [line.split()[0] for line in page.splitlines()[4 : 4 + len(stages)]]
    assert all(phase["device_hours"] > 0 and 0 < phase["flops"] <= phase["computed"] for phase in found["phases"])
    assert found["disk"]["total"] > 0


def test_messages_say_what_to_give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"--rows: got \['gooaq'\], expected sources of the recipe"):
        plan(TINY, device="l4", given=OutOfReach(rows=("gooaq=5",), tokens_per_text=9))
    with pytest.raises(ValueError, match="got 'wikipedia', expected NAME=VALUE"):
        plan(TINY, device="l4", given=OutOfReach(rows=("wikipedia",)))
    with pytest.raises(FileNotFoundError, match="no finished stage to compare the plan with"):
        plan(TINY, device="l4", given=GIVEN, check=True)
    recipe = read(TINY)
    teacher = recipe.embed.teacher.model_copy(update={"path": "nobody/none"})
    out_of_reach = recipe.model_copy(update={"embed": recipe.embed.model_copy(update={"teacher": teacher})})
    monkeypatch.setattr(command, "read", lambda _: out_of_reach)
    with pytest.raises(FileNotFoundError, match=r"nobody/none.*--model nobody/none=FOLDER"):
        plan(TINY, device="l4", given=GIVEN)


def test_the_table_marks_what_does_not_fit_and_compares_with_what_was_measured() -> None:
    lines = cost_table([planned("embed", 30.0), planned("distill", 7200.0, 2.0**31)], DEVICE, {"distill": 3600.0})
    header, embed, distill, total = lines.splitlines()
    assert header.split()[-4:] == ["measured", "device-h", "memory", "activations"]
    assert embed.split() == ["embed", "2", "30", "4", "5", "30", "s", "0.00833", "1", "MiB", "1", "MiB"]
    assert "60 min, ratio 2.00" in distill and "2.0 GiB does not fit" in distill
    assert total.split() == ["sum", "120", "min", "2.01"]
    assert "measured" not in cost_table([planned("embed", 30.0)], DEVICE, {})


def test_seconds_come_from_the_stages_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    with stage_run("adapt@retrieval", {"name": "toy", "seed": 1}, inputs=[]):
        pass
    found = measured_seconds(tmp_path / "data/lineage", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert 0 <= found["adapt@retrieval"] < 60
