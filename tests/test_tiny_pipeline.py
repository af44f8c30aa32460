"""The whole pipeline on tests/recipes/tiny.yaml, driven as a user drives it: `dvc repro` in a checkout."""

import hashlib
import json
import operator
import shutil
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages import adapt, extend
from stages.recipe.paths import VECTORS
from stages.recipe.recipe import read
from stages.release.verification import content_faults, release_faults
from tests.checkouts import DVC, TINY, checkout, chosen_tasks, copy_of, run, set_params

TASKS = ("retrieval", "text-matching", "clustering", "classification")
pytestmark = pytest.mark.slow


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Stages that a `dvc repro` really ran."""
    marks = [line for line in done.stdout.splitlines() if line.startswith("Running stage ")]
    return [line.split("'")[1] for line in marks]


@pytest.fixture(scope="module")
def built(tiny_build: Path) -> Path:
    """The build that tests share: those that change a file or build on take a copy."""
    return tiny_build


def test_every_stage_leaves_its_outputs(built: Path) -> None:
    release = built / "data/quantized/stillhouse-tiny"
    for task in TASKS:
        assert (release / "adapters" / task / "adapter_model.safetensors").is_file()
        assert (release / "merged" / task / "modules.json").is_file()
        assert (release / "openvino-int8" / task / "model.xml").is_file()
    metrics = json.loads((built / "data/evaluated/figures.json").read_text(encoding="utf-8"))
    assert set(metrics["retrieval"]) == {"teacher", "bm25", "static", "base", "continued", "retrieval"}
    assert 0 < metrics["summary"]["retrieval_retention"] < 1.5
    assert 0 < metrics["summary"]["unseen_retention"] < 1.5
    assert {name: list(by_model) for name, by_model in metrics["long"].items()} == {
        name: ["before", "after"] for name in ("needle", "passkey", "articles")
    }
    # Its own theta, the recipe's other one, the release's.
    assert set(metrics["long"]["needle"]["after"]) == {"10000", "40000", "20000"}
    assert metrics["summary"]["long_needle_ndcg_at_1"] == pytest.approx(
        np.mean(list(metrics["long"]["needle"]["after"]["20000"].values()))
    )
    report = (built / "data/evaluated/report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "http-equiv" in report
    judged = (built / "data/promoted/report.html").read_text(encoding="utf-8")
    assert "Passed" in judged and "Not judged yet" in report
    intervals = metrics["intervals"]["text_matching_over_base"]
    assert intervals["low"] <= metrics["summary"]["text_matching_over_base"] <= intervals["high"]
    stages = {path.stem for path in (built / "data/lineage").glob("*.json")}
    assert stages == {"curate", "embed", "mine", "distill", "extend", *(f"adapt@{task}" for task in TASKS)} | {
        "quantize",
        "evaluate",
        "promote",
    }


def test_the_release_carries_theta_and_length_of_inference_not_of_training(built: Path) -> None:
    release = built / "data/quantized/stillhouse-tiny"
    trained = json.loads((built / "data/extended/student/encoder.json").read_text(encoding="utf-8"))
    assert (trained["rope_theta"], trained["max_tokens"]) == (10_000.0, 128)
    for folder in (release / "base", *(release / "merged").iterdir()):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        assert config["rope_parameters"]["rope_theta"] == settings["rope_theta"] == 20_000.0
        assert settings["max_tokens"] == 128


def test_the_release_verifies_and_is_bound_to_its_runs(built: Path) -> None:
    assert content_faults(built / "data/quantized/stillhouse-tiny") == []
    lineage = json.loads((built / "data/quantized/stillhouse-tiny/lineage.json").read_text(encoding="utf-8"))
    assert len(lineage["dvc_lock_sha256"]) == 64
    record = json.loads((built / "data/lineage/quantize.json").read_text(encoding="utf-8"))
    sums = (built / "data/quantized/stillhouse-tiny/SHA256SUMS").read_bytes()
    assert record["sha256sums"] == hashlib.sha256(sums).hexdigest()
    assert {"curate", "distill", "adapt@clustering", "quantize"} <= record["run_ids"].keys()
    assert record["run_ids"]["quantize"] == record["run_id"]


def test_merged_models_load_elsewhere_and_give_the_adapters_vectors(built: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from stages.modeling.adapters import load_adapter
    from stages.modeling.encoder import saved_encoder

    release = built / "data/quantized/stillhouse-tiny"
    texts = ["A hat is a head covering.", "", "Zürich 🎩 北京", "word " * 300]
    for task in TASKS:
        encoder = saved_encoder(release / "base", rope_theta=None)
        load_adapter(encoder, task, release / "adapters" / task)
        model = SentenceTransformer(str(release / "merged" / task), device="cpu")
        for side in ("query", "document"):
            # Every task but retrieval reads queries as documents.
            own_side = side if task == "retrieval" else "document"
            np.testing.assert_allclose(
                model.encode(texts, prompt_name=side),
                encoder.encode(texts, own_side),
                atol=1e-5,
                err_msg=f"{task} {side}",
            )


def test_promoted_model_is_served_by_alias_and_has_not_drifted(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served is what the checkpoint gave before anything was merged, saved or logged."""
    import mlflow

    from stages.release.format_comparison import cosine
    from stages.release.parity_samples import load_samples

    monkeypatch.chdir(built)
    mlflow.set_tracking_uri(f"sqlite:///{built / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/stillhouse-tiny@champion")
    samples = load_samples(built / "data/quantized/stillhouse-tiny")
    for task in TASKS:
        for side in ("query", "document"):
            rows = [row for row, case in enumerate(samples.embedded) if samples.cases[case].side == side]
            texts = [samples.cases[samples.embedded[row]].text for row in rows]
            served = np.asarray(model.predict(texts, params={"task": task, "prompt": side}))
            assert cosine(served, samples.references[task].embeddings[rows]).min() > 0.99999, f"{task} {side}"
    vectors = np.asarray(model.predict(["a hat"], params={"task": "clustering", "dimensions": 64, "precision": "int8"}))
    assert (vectors.shape, vectors.dtype) == ((1, 64), np.int8)
    runs = mlflow.search_runs(experiment_names=["stillhouse-tiny"])
    assert len(runs) == 13  # a parent, and a child for each stage that works
    assert set(runs["status"]) == {"FINISHED"}


def test_second_build_does_nothing_and_a_changed_value_reruns_its_stages_alone(built: Path, tmp_path: Path) -> None:
    folder = copy_of(built, tmp_path / "copy")
    assert ran(run(folder, *DVC, "repro")) == []
    set_params(folder, {"adapt.clustering.training.learning_rate": 0.002})
    assert ran(run(folder, *DVC, "repro", *(f"adapt@{task}" for task in TASKS))) == ["check", "adapt@clustering"]
    stale = json.loads(run(folder, *DVC, "status", "--json").stdout)
    assert stale.keys() == {"quantize", "evaluate"}, "and promote, once their outputs have changed"


def test_a_misspelt_key_stops_the_build_before_any_output_is_touched(built: Path, tmp_path: Path) -> None:
    folder = copy_of(built, tmp_path / "copy")
    good = (folder / "params.yaml").read_text(encoding="utf-8")
    before = outputs(folder)
    (folder / "params.yaml").write_text(good.replace("relative_margin", "relativ_margin"), encoding="utf-8")
    stopped = run(folder, *DVC, "repro", check=False)
    assert stopped.returncode != 0
    assert "mine.relativ_margin: unknown key" in stopped.stdout + stopped.stderr
    assert outputs(folder) == before


def outputs(folder: Path) -> list[Path]:
    """Files of every stage but `check`."""
    return sorted(path for path in (folder / "data").rglob("*") if path.is_file() and "checked" not in path.parts)


@pytest.mark.parametrize(
    ("phase", "section", "named"),
    [
        ("extend", "extend.mixture", "extend.mixture needles"),
        ("retrieval", "adapt.retrieval.mixture", "adapt.retrieval.mixture wikipedia"),
        ("text-matching", "adapt.text-matching.training", "adapt.text-matching.scored_sources simlex, wordsim"),
        ("clustering", "adapt.clustering.training", "adapt.clustering.sources wikipedia"),
        ("classification", "adapt.classification.training", "adapt.classification.sources wikipedia-topics"),
    ],
)
def test_too_few_rows_for_a_batch_are_told_with_their_sources(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, section: str, named: str
) -> None:
    from stages.modeling.encoder import saved_encoder
    from stages.modeling.projection import read_projection

    values = YAML(typ="safe").load(TINY)
    found = reduce(operator.getitem, section.split("."), values)
    for part in found if isinstance(found, list) else [found]:
        part["batch_size"] = 5000
    YAML(typ="safe").dump(values, tmp_path / "params.yaml")
    monkeypatch.chdir(built)
    recipe, encoder = read(tmp_path / "params.yaml"), saved_encoder(Path("data/extended/student"), rope_theta=None)
    projection = read_projection(Path("data/extended/projection.safetensors"))
    if phase == "extend":
        batches = extend.training_data(recipe, encoder)[1]
    else:
        batches = adapt.PHASES[phase](recipe, encoder, projection).epoch_batches
    with pytest.warns(UserWarning, match=rf"^{named}: got \d+ rows, fewer than the 5000 of a batch"):
        batches(0)


def test_distill_and_adapters_resume_after_sigkill_with_the_same_weights(built: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("stages", "data", "params.yaml"):
        source = built / name
        shutil.copytree(source, killed / name) if source.is_dir() else shutil.copy(source, killed)
    commands = {
        "distill": ("stages.distill",),
        "extend": ("stages.extend",),
        "retrieval": ("stages.adapt", "retrieval"),
    }
    expected = {stage: _weights(killed, stage) for stage in commands}
    for stage, command in commands.items():
        _kill_after_checkpoint(killed, command, ".stillhouse/checkpoints")
        run(killed, sys.executable, "-m", *command)
        assert _weights(killed, stage) == expected[stage], stage


def _weights(folder: Path, stage: str) -> bytes:
    students = {
        "distill": "data/distilled/student/model.safetensors",
        "extend": "data/extended/student/model.safetensors",
    }
    path = students.get(stage, f"data/adapted/{stage}/adapter_model.safetensors")
    return (folder / path).read_bytes()


def _kill_after_checkpoint(folder: Path, command: tuple[str, ...], checkpoints: str) -> None:
    """Start a stage and SIGKILL it as soon as it has written a checkpoint."""
    import time

    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list((folder / checkpoints).rglob("checkpoint.safetensors")):
        assert process.poll() is None, f"{command} ended before its first checkpoint"
        assert time.monotonic() < deadline, f"{command} wrote no checkpoint in time"
        time.sleep(0.005)
    process.kill()
    process.wait()


def pretrained_bert(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe for the first layer of the teacher, a BERT, with mean pooling and without rotary positions."""
    shape = ("num_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
    recipe["distill"]["backbone"] |= {"architecture": "pretrained", "layers": [0], **dict.fromkeys(shape)}
    recipe["distill"]["pooling"] = "mean"
    for section in (recipe["distill"], recipe["extend"], recipe["quantize"], *recipe["adapt"].values()):
        section["rope_theta"] = None
    recipe["evaluate"]["long"] |= {"haystacks": None, "articles": None}  # longer than its positions
    recipe["quantize"]["formats"] = ["onnx-int8"]
    return recipe


def test_retrieval_alone_with_a_pretrained_bert_runs_from_check_to_promote(built: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path, chosen_tasks(pretrained_bert(YAML(typ="safe").load(TINY)), "retrieval"))
    shutil.copytree(built / VECTORS, folder / VECTORS)  # the teacher's, as after an earlier build
    run(folder, *DVC, "repro")
    release = folder / "data/quantized/stillhouse-tiny"
    for form in ("adapters", "merged", "onnx-int8"):
        assert [path.name for path in (release / form).iterdir()] == ["retrieval"]
    assert not [path for path in release.iterdir() if path.name.startswith("openvino")]
    assert json.loads((release / "base/encoder.json").read_text(encoding="utf-8"))["pooling"] == "mean"
    pooling = json.loads((release / "merged/retrieval/1_Pooling/config.json").read_text(encoding="utf-8"))
    assert pooling["pooling_mode"] == "mean"
    assert release_faults(release, embed=True, threads=2) == []
    parity, limits = (json.loads((release / name).read_text()) for name in ("parity.json", "calibration.json"))
    assert {task for found in parity["formats"].values() for task in found["tasks"]} == {"retrieval"}
    assert set(limits["int8_limit"]) == {"retrieval"}
    figures = json.loads((folder / "data/evaluated/figures.json").read_text(encoding="utf-8"))
    report = json.loads((folder / "data/evaluated/report.json").read_text(encoding="utf-8"))
    promoted = json.loads((folder / "data/promoted/version.json").read_text(encoding="utf-8"))
    named = [*figures, *figures["summary"], *report["curves"], *(gate["metric"] for gate in promoted["gates"])]
    absent = [task for task in TASKS if task != "retrieval"]
    assert not [name for name in named for task in absent if task.replace("-", "_") in name.replace("-", "_")]
    assert set(report["curves"]) == {"distill", "extend", "adapt@retrieval"}
    assert promoted["validation_status"] == "passed"
    assert ran(run(folder, *DVC, "repro")) == []
