"""Two processes against one with the doubled batch, through the very command that a stage starts itself with."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.tracking.main_process import is_main_process
from stages.training.distributed import TrainingProcesses
from stages.training.launch import launch

ROOT = Path(__file__).resolve().parents[2]
# Trains an adapter for retrieval (joint, a learned temperature), one for classification (reads the base) and the whole
# student (separable, with its projection); writes what was learned. `shard` spreads the backbone's weights.
SCRIPT = """
import json, sys, time
from pathlib import Path
from stages.training.launch import launch
from stages.tracking.main_process import is_main_process
processes, batch_size, shard, backbone = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "shard", sys.argv[4]
import numpy as np, torch
from safetensors.torch import save_file
from stages.training.batches import shuffled_batches
from stages.modeling.adapters import add_adapter, save_adapter
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.objectives.classification import ClassificationObjective
from stages.objectives.distillation import DistillationObjective
from stages.objectives.retrieval import RetrievalObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.checkpoints import checkpoint_file
from stages.training.loop import TrainingPhase, train
from stages.training.state import trainable
from tests import sections

torch.set_num_threads(1)
generator = np.random.default_rng(0)
words = [a + b for a in "bcdf" for b in "aeiou"]
texts = [" ".join(generator.choice(words, generator.integers(2, 9))) for _ in range(24)]
teacher = generator.normal(size=(2, 24, 8)).astype(np.float16)
negatives = np.stack([np.arange(1, 25) % 24, np.arange(2, 26) % 24], axis=1)
engine = sections.engine(processes=processes, micro_batch_tokens=60, shard=shard)

def objective_of(name):
    torch.manual_seed(5)
    encoder = load_encoder(backbone, EncoderSettings("last", {"query": "", "document": ""}, 16))
    projection = torch.nn.Linear(32, 8)
    pairs = [TrainingTexts.of(encoder, texts, side, 16, teacher[i]) for i, side in enumerate(("query", "document"))]
    if name == "distillation":
        return DistillationObjective(encoder, projection, [16, 32], pairs[0])
    add_adapter(encoder, "task", 4, 4)
    if name == "classification":
        return ClassificationObjective(encoder, [16, 32], sections.classification(), pairs[0], [*"abcdef"] * 4, seed=7)
    return RetrievalObjective(encoder, projection, [16, 32], sections.retrieval(), pairs, negatives)

def phase_of(name, objective, evaluate):
    def epoch_batches(epoch):
        return shuffled_batches([1] * 24, batch_size * processes, 1, epoch, "toy")
    return TrainingPhase(name, objective, epoch_batches, texts, evaluate)

for name in sys.argv[5:]:
    objective = objective_of(name)
    def log(row, step):
        if is_main_process():
            print("step", name, step, flush=True)
            time.sleep(0.03)
    phase = phase_of(name, objective, lambda: {"first": float(objective.encoder.encode(texts[:2], "query")[0, 0])})
    schedule = sections.schedule(10, weight_decay=0.1, evaluate_every=5, checkpoint_every=2)
    with checkpoint_file(name, "key", Path("checkpoints")) as checkpoint:
        curve, snapshot = train(phase, schedule, engine, checkpoint, log, snapshot_at=6)
        if is_main_process():
            tensors = {key: value.detach().contiguous() for key, value in trainable(objective).items()}
            tensors |= {f"snapshot.{key}": value.contiguous() for key, value in snapshot.items()}
            save_file(tensors, f"{name}.safetensors")
            Path(f"{name}.json").write_text(json.dumps(curve))
            if name == "distillation":
                objective.encoder.save(Path("saved"))
            else:
                save_adapter(objective.encoder, "task", Path(f"saved-{name}/task"))
    if name == "distillation":  # as a stage does that trains twice
        with checkpoint_file(name, "again", Path("checkpoints")) as checkpoint:
            schedule = sections.schedule(2, weight_decay=0.1)
            train(phase_of(name, objective, dict), schedule, engine, checkpoint, lambda row, step: None)
"""
NAMES = ("retrieval", "classification", "distillation")


def command(folder: Path, backbone: Path, processes: int, how: str, names: tuple[str, ...]) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "train_all.py").write_text(SCRIPT, encoding="utf-8")
    own = [str(processes), str(8 // processes), how, str(backbone), *names]
    if processes == 1:
        return [sys.executable, "train_all.py", *own]
    flags = ["--multi_gpu", "--num_machines", "1", "--num_processes", "2", "--main_process_port", "0"]
    flags += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *flags, "train_all.py", *own]


def start(
    folder: Path, backbone: Path, processes: int, how: str = "whole", names: tuple[str, ...] = NAMES
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, backbone, processes, how, names),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return output


def learned(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def trained_alone(backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder, backbones["eurobert"], 1))
    return folder


@pytest.fixture(scope="module")
def trained_by_two(backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    finish(start(folder, backbones["eurobert"], 2))
    return folder


def assert_alike(one: Path, other: Path, name: str) -> None:
    """The same weights after ten steps, and the same loss and gradient norm at each, up to rounding."""
    left, right = learned(one, name), learned(other, name)
    assert left.keys() == right.keys()
    for key, value in left.items():
        torch.testing.assert_close(right[key], value, atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")
    curves = [json.loads((folder / f"{name}.json").read_text()) for folder in (one, other)]
    for row, expected in zip(*curves, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_learn_what_one_does_from_the_doubled_batch(
    trained_alone: Path, trained_by_two: Path, name: str
) -> None:
    assert_alike(trained_alone, trained_by_two, name)


@pytest.mark.slow
def test_weights_spread_over_two_processes_learn_the_same(
    trained_alone: Path, backbones: dict[str, Path], tmp_path: Path
) -> None:
    """FSDP: joint with an adapter, and separable with every weight trained."""
    names = ("retrieval", "distillation")
    finish(start(tmp_path / "shard", backbones["eurobert"], 2, "shard", names))
    for name in names:
        assert_alike(trained_alone, tmp_path / "shard", name)
    for file in ("saved/model.safetensors", "saved-retrieval/task/adapter_model.safetensors"):
        saved, expected = load_file(tmp_path / "shard" / file), load_file(trained_alone / file)
        assert saved.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(saved[key], value, atol=2e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "shard"])
def test_two_processes_killed_and_started_again_end_as_if_they_had_not_been(
    trained_by_two: Path, backbones: dict[str, Path], tmp_path: Path, how: str
) -> None:
    """SIGKILL to launcher and both processes, twice; the weights are the same to the bit."""
    folder, expected = tmp_path / "killed", trained_by_two
    if how == "shard":  # sums come in another order than without, so it is held against its own whole run
        expected = tmp_path / "whole"
        finish(start(expected, backbones["eurobert"], 2, how, ("retrieval",)))
    for kill_at in (3, 7):
        process = start(folder, backbones["eurobert"], 2, how, ("retrieval",))
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"step retrieval {kill_at}\n":
                break
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    again = finish(start(folder, backbones["eurobert"], 2, how, ("retrieval",)))
    assert again.count("step retrieval") == 10, "earlier steps are logged again, from the checkpoint"
    left, right = learned(expected, "retrieval"), learned(folder, "retrieval")
    for key, value in left.items():
        assert torch.equal(value, right[key]), key
    shutil.rmtree(folder)


def test_another_number_of_processes_than_the_recipe_says_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"got 1 processes, engine.processes is 2; start the stage with python -m"):
        TrainingProcesses(2)


@pytest.mark.slow
def test_a_stage_starts_its_own_peers(tmp_path: Path) -> None:
    """`launch` goes on as two processes of the same module; what one of them alone does, happens once."""
    (tmp_path / "peers.py").write_text(
        "from stages.training.launch import launch\n"
        "from stages.tracking.main_process import is_main_process\n"
        "launch(['peers'], 2)\n"
        "from stages.training.distributed import TrainingProcesses\n"
        "import torch\n"
        "processes = TrainingProcesses(2)\n"
        "total = int(processes.sum(torch.tensor([processes.rank + 1.0])))\n"
        "print('total', total, flush=True) if is_main_process() else None\n"
        "processes.check_same_step(7)\n"
        "try:\n"
        "    processes.check_same_step(processes.rank)\n"
        "except ConnectionError as error:\n"
        "    print(error, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "peers"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("total 3") == 1
    for rank in range(2):  # each has read another checkpoint
        assert f"the process of rank {rank} resumes from step {rank}, others do not" in done.stdout


def test_one_process_needs_no_launcher() -> None:
    launch(["stages.distill"], 1)  # returns, else this test would have become another program
    assert is_main_process()
