"""Stages recorded in a real MLflow store: a SQLite file in a temporary folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.recipe.redaction import redacted
from stages.tracking.address import tracking_uri
from stages.tracking.digests import digest
from stages.tracking.git import git_state
from stages.tracking.recorder import build_status, flattened, is_gone, process_tag
from stages.tracking.runs import TrackingError, stage_run

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {"name": "tiny", "seed": 7}


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STILLHOUSE_BUILD", "one")
    shutil.copy(empty_store, "mlflow.db")
    Path("curated").mkdir()
    Path("curated/pairs.txt").write_text("still\thouse\n")
    return tmp_path


def run_of(run_id: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri()).get_run(run_id)


def start_stage(source: str, *, dvc: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *([str(dvc)] if dvc else []), "-c", source]
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, start_new_session=True)


def test_a_stage_is_recorded_under_its_build(project: Path) -> None:
    Path("mlflow.db").unlink()  # the first stage of a project makes the store
    params = RECIPE | {"adapt": {"lora": {"rank": 32}, "sources": ["a", "b"]}, "long": "x" * 7000}
    with stage_run("adapt@retrieval", params, [Path("curated")]) as run:
        for step in range(1500):
            run.log_metrics({"loss": 1 / (step + 1), "lr": 0.1}, step=step)
        Path("curve.svg").write_text("<svg/>")
        run.log_artifact(Path("curve.svg"))
        Path("curve.svg").unlink()

    lineage = json.loads(Path("data/lineage/adapt@retrieval.json").read_text())
    assert list(lineage) == sorted(lineage)
    assert lineage["inputs"] == {"curated": digest(Path("curated"))}
    assert lineage["experiment"] == "tiny"

    child, parent = run_of(lineage["run_id"]), run_of(lineage["parent_run_id"])
    assert child.info.status == parent.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["stage"] == "adapt@retrieval"
    assert child.data.tags["recipe"] == parent.data.tags["recipe"] == "tiny"
    assert parent.data.tags["stillhouse.build"] == "one"
    assert parent.data.tags["lineage.adapt.retrieval"] == child.info.run_id
    assert child.data.params["adapt.lora.rank"] == "32"
    assert child.data.params["adapt.sources"] == '["a", "b"]'
    assert len(child.data.params["long"]) == 6000
    assert child.data.metrics["loss"] == pytest.approx(1 / 1500)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri())
    history = client.get_metric_history(child.info.run_id, "loss")
    assert sorted(metric.step for metric in history) == list(range(1500))
    assert {file.path for file in client.list_artifacts(child.info.run_id)} == {
        "curve.svg",
        "lineage.json",
        "params.json",
    }
    assert (project / "mlruns/tiny").is_dir()


def test_a_training_whose_record_failed_does_not_go_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.tracking.runs.FLUSH_SECONDS", 0.0)
    with pytest.raises(TrackingError, match="ndcg@10"), stage_run("distill", RECIPE, []) as run:
        run.log_metrics({"ndcg@10": 0.5})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            run.log_metrics({"loss": 1.0})
            time.sleep(0.05)


def test_a_figure_that_mlflow_refuses_fails_the_stage(project: Path) -> None:
    with pytest.raises(TrackingError, match="ndcg@10"), stage_run("evaluate", RECIPE, []) as run:
        assert run.run_id
        run.log_metrics({"ndcg@10": 0.5})
    assert run_of(run.run_id).info.status == "FAILED"
    assert not Path("data/lineage").exists()


def test_a_failed_stage_is_mended_and_a_later_build_names_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="loss is nan"), stage_run("distill", RECIPE, []) as run:
        raise ValueError("loss is nan at http://user:secret@host")
    assert not Path("data/lineage/distill.json").exists()
    failed = run_of(run.run_id)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["failure"] == "ValueError: loss is nan at http://***@host"
    assert run_of(run.parent_run_id).info.status == "FAILED"

    with stage_run("distill", RECIPE, []) as second:
        assert run_of(second.parent_run_id).info.status == "RUNNING"
    assert second.parent_run_id == run.parent_run_id
    assert run_of(run.parent_run_id).info.status == "FINISHED"

    # A new build in which distill is cached still names its run.
    monkeypatch.setenv("STILLHOUSE_BUILD", "two")
    with stage_run("evaluate", RECIPE, [Path("curated")]) as evaluate:
        pass
    assert evaluate.parent_run_id != second.parent_run_id
    tags = run_of(evaluate.parent_run_id).data.tags
    assert tags["lineage.distill"] == second.run_id
    assert tags["lineage.evaluate"] == evaluate.run_id


@pytest.mark.slow
def test_stages_that_start_together_share_one_parent(project: Path) -> None:
    source = (
        "from stages.tracking.runs import stage_run as s\n"
        "with s('{}', {{'name': 'tiny'}}, []) as run: [run.log_metrics({{'loss': 1.0}}, step) for step in range(100)]"
    )
    tasks = ("adapt@retrieval", "adapt@clustering", "adapt@classification", "adapt@text-matching")
    stages = [start_stage(source.format(task)) for task in tasks]
    assert [stage.wait(timeout=120) for stage in stages] == [0, 0, 0, 0]
    parents = {json.loads(path.read_text())["parent_run_id"] for path in Path("data/lineage").iterdir()}
    assert len(parents) == 1

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri())
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.slow
def test_the_next_stage_marks_the_run_of_a_killed_one_and_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "import time\nfrom stages.tracking.runs import stage_run as s\n"
        "with s('embed', {'name': 'tiny'}, []) as run: print(run.run_id, flush=True); time.sleep(600)"
    )
    killed, living = (start_stage(source, STILLHOUSE_BUILD=build) for build in ("killed", "living"))
    try:
        killed_id, living_id = (str(stage.stdout.readline()).strip() for stage in (killed, living))  # type: ignore[union-attr]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with stage_run("mine", RECIPE, []) as run:
            assert run.run_id
        swept = run_of(killed_id)
        assert swept.info.status == "KILLED"
        assert swept.data.tags["failure"] == "the process of the stage was killed"
        assert run_of(swept.data.tags["mlflow.parentRunId"]).info.status == "FAILED"
        running = run_of(living_id)
        assert running.info.status == "RUNNING"
        assert run_of(running.data.tags["mlflow.parentRunId"]).info.status == "RUNNING"
    finally:
        living.kill()
        living.wait()


def test_a_process_is_known_by_machine_id_and_start() -> None:
    host, pid, start = json.loads(process_tag())
    assert not is_gone(process_tag())
    assert not is_gone(None), "the run of something else than a stage"
    assert is_gone(json.dumps([host, pid, start - 3600])), "a later process with the same id"
    assert not is_gone(json.dumps(["another machine", 2**30, start]))
    assert is_gone(json.dumps([host, 2**30, start]))


def test_the_nearest_dvc_is_the_build(tmp_path: Path) -> None:
    stage = "from stages.tracking.runs import build_identity; print(build_identity())"
    dvc = tmp_path / "dvc"
    dvc.write_text(
        "import os, subprocess, sys\nprint(os.getpid(), flush=True)\n"
        'command = f"sh -c \'{sys.executable} -c \\"{sys.argv[2]}\\"\'"\n'
        "for _ in range(2): subprocess.run(command, shell=True)\n"
    )
    process = start_stage(stage, dvc=dvc, STILLHOUSE_BUILD="")
    output, _ = process.communicate(timeout=60)
    pid, first, second = output.split()
    assert first == second
    assert first.startswith(f"dvc-{pid}-")


def test_a_store_that_is_not_there_fails_the_stage_without_its_password(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError) as error, stage_run("curate", RECIPE, []):
        pass
    assert "127.0.0.1" in str(error.value)
    assert "secret" not in str(error.value)
    assert not Path("data/lineage").exists()


def test_a_missing_input_is_said_before_anything_runs(project: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="missing input data/mined"),
        stage_run("distill", RECIPE, [Path("data/mined")]),
    ):
        pass
    assert not Path(".stillhouse").exists()


def test_the_password_of_a_tracking_server_moves_out_of_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p%40ss@tracking.example:5000/base")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    assert tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == "https://tracking.example:5000/base"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@ss"
    assert redacted("postgresql://me:secret@db/mlflow") == "postgresql://***@db/mlflow"


def test_git_state_ignores_what_a_build_rewrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() == (None, None)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    Path("dvc.lock").write_text("a")
    Path("stage.py").write_text("a")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    Path("dvc.lock").write_text("b")
    commit, dirty = git_state()
    assert commit is not None
    assert len(commit) == 40
    assert dirty is False
    Path("stage.py").write_text("b")
    assert git_state() == (commit, True)


def test_a_digest_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_text("1")
    before = digest(tmp_path)
    (tmp_path / ".gitignore").write_text("/sub")
    assert digest(tmp_path) == before
    (tmp_path / "sub/a").write_text("2")
    changed = digest(tmp_path)
    (tmp_path / "sub/a").rename(tmp_path / "sub/b")
    assert len({before, changed, digest(tmp_path)}) == 3


def test_nested_params_become_dotted_names() -> None:
    params = {"a": {"b": {"c": 1e-4}, "empty": {}}, "none": None, "flag": True, "word": "x"}
    assert flattened(params) == {"a.b.c": "0.0001", "none": "null", "flag": "true", "word": "x"}


@pytest.mark.parametrize(
    ("stages", "build"),
    [
        ({"FINISHED"}, "FINISHED"),
        ({"FINISHED", "RUNNING", "FAILED"}, "RUNNING"),
        ({"FINISHED", "KILLED"}, "FAILED"),
    ],
)
def test_a_build_is_as_its_stages(stages: set[str], build: str) -> None:
    assert build_status(stages) == build
