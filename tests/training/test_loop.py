"""The training loop over a toy objective, and over a real one in a process that is killed."""

import hashlib
import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.recipe.training import Schedule
from stages.training import checkpoints
from stages.training.batches import shuffled_batches
from stages.training.checkpoints import CheckpointFile
from stages.training.curves import read_curve, write_curve
from stages.training.loop import FIRST_STEPS, TrainingPhase, train
from stages.training.state import Curve, trainable
from tests import sections

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20
SCHEDULE = sections.schedule(
    12, learning_rate=0.05, warmup_ratio=0.25, weight_decay=0.1, evaluate_every=5, checkpoint_every=3
)


class ToyEncoder(nn.Module):
    """A text is its row number; its embedding a linear map, with dropout (so the random state matters)."""

    precision = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.backbone = self.linear = nn.Linear(4, 3)
        self.register_buffer("inputs", torch.randn(ROWS, 4))

    def arrange(self, precision: str, packing: bool) -> None:
        assert (precision, packing) == ("float32", False)

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor(tokens.ids)[:, None]}

    def forward(self, input_ids: Tensor) -> Tensor:
        return nn.functional.dropout(self.linear(self.inputs[input_ids[:, 0]]), 0.5, self.training)

    @property
    def device(self) -> torch.device:
        return self.linear.weight.device

    def training_flops(self, lengths: np.ndarray) -> float:
        return 72.0 * len(lengths)


class Toy(Objective):
    """A regression with a learned temperature and a frozen weight."""

    def __init__(self, stop_at: int | None = None, nan_at: int | None = None, explode_at: int | None = None) -> None:
        torch.manual_seed(3)
        super().__init__(ToyEncoder())
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("targets", torch.randn(ROWS, 3))
        self.stop_at, self.nan_at, self.explode_at = stop_at, nan_at, explode_at
        self.seen: list[list[int]] = []

    def texts(self, rows: np.ndarray) -> Tokens:
        return Tokens.of([[row] for row in rows.tolist()])

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: None = None) -> dict[str, Tensor]:
        if self.training:
            self.seen.append(rows.tolist())
            if len(self.seen) == self.stop_at:
                raise KeyboardInterrupt
        hidden = embeddings * self.frozen / self.temperature.exp()
        error = (hidden - self.targets[torch.as_tensor(rows)]).square().mean()
        if self.training and len(self.seen) == self.nan_at:
            error = error * math.nan
        if self.training and len(self.seen) == self.explode_at:
            error = error * 1000
        return {"error": error, "size": 0.01 * self.encoder.linear.weight.square().sum()}


def epoch_batches(epoch: int) -> list[np.ndarray]:
    return shuffled_batches([1] * ROWS, 4, 1, epoch, "toy")


def run(
    objective: Objective,
    file: Path,
    schedule: Schedule = SCHEDULE,
    snapshot_at: int | None = 4,
    log: Callable[[dict[str, float], int], None] = lambda row, step: None,
) -> tuple[Curve, dict[str, Tensor]]:
    def evaluate() -> dict[str, float]:
        assert not objective.training
        with torch.no_grad():
            rows = np.arange(ROWS)
            everything = objective.encoder(torch.as_tensor(rows)[:, None])
            return {name: float(term) for name, term in objective(rows, everything).items()}

    phase = TrainingPhase("toy", objective, epoch_batches, [f"row {row}" for row in range(ROWS)], evaluate)
    return train(phase, schedule, sections.engine(), CheckpointFile(file), log, snapshot_at)


def weights(objective: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in objective.named_parameters()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value.cpu(), right[name].cpu()), name


@pytest.fixture
def gradient_norms() -> Iterator[list[float]]:
    """Norm of the gradient that each optimizer step really applied."""
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        norms.append(float(torch.cat([one.flatten() for one in gradients]).norm()))

    handle = register_optimizer_step_pre_hook(note)
    yield norms
    handle.remove()


def test_training_lowers_the_loss_and_leaves_the_frozen_alone(tmp_path: Path) -> None:
    toy = Toy()
    before = weights(toy)
    curve, _ = run(toy, tmp_path / "checkpoint")
    assert curve[-1]["dev_error"] < curve[4]["dev_error"]
    assert set(trainable(toy)) == {"encoder.backbone.weight", "encoder.backbone.bias", "temperature"}
    for name, value in weights(toy).items():
        assert torch.equal(value, before[name]) == (name == "frozen"), name


def test_curve_has_a_row_a_step_and_every_term_by_name(tmp_path: Path) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    curve, _ = run(Toy(), tmp_path / "checkpoint", log=lambda row, step: logged.append((step, row)))
    assert [row["step"] for row in curve] == list(range(1, 13))
    for row in curve:
        assert row["loss"] == pytest.approx(row["error"] + row["size"], rel=1e-6)
    assert [row["step"] for row in curve if "dev_error" in row] == [5, 10, 12]
    speed = {"tokens_per_second", "mfu", "padding_share"}
    assert all(speed <= row.keys() and row["tokens_per_second"] > 0 < row["mfu"] for _, row in logged)
    without = [(step, {key: value for key, value in row.items() if key not in speed}) for step, row in logged]
    assert without == [(row["step"], {key: row[key] for key in row if key != "step"}) for row in curve]

    write_curve(tmp_path / "curves" / "curve.csv", curve)
    assert read_curve(tmp_path / "curves" / "curve.csv") == curve


def test_learning_rate_warms_up_and_falls_to_zero_as_a_cosine(tmp_path: Path) -> None:
    curve, _ = run(Toy(), tmp_path / "checkpoint")
    warmup, steps = 3, 12  # a quarter of the steps
    expected = [
        0.05 * (done / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (steps - warmup))))
        for done in range(1, steps + 1)
    ]
    assert [row["learning_rate"] for row in curve] == pytest.approx(expected, abs=1e-12)
    assert max(expected) == 0.05
    assert curve[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-12)


def test_gradients_are_clipped(tmp_path: Path, gradient_norms: list[float]) -> None:
    schedule = SCHEDULE.model_copy(update={"max_grad_norm": 0.1})
    curve, _ = run(Toy(), tmp_path / "checkpoint", schedule)
    assert min(row["gradient_norm"] for row in curve) > 0.1, "the curve keeps what it was before clipping"
    assert gradient_norms == pytest.approx([0.1] * 12, rel=1e-4)


def test_small_gradients_are_left_as_they_are(tmp_path: Path, gradient_norms: list[float]) -> None:
    schedule = SCHEDULE.model_copy(update={"max_grad_norm": 1000.0})
    curve, _ = run(Toy(), tmp_path / "checkpoint", schedule)
    assert gradient_norms == pytest.approx([row["gradient_norm"] for row in curve], rel=1e-5)


def test_weight_decay_spares_vectors_and_scalars(tmp_path: Path) -> None:
    """With no gradient but decay, a matrix shrinks; a bias or a temperature does not."""

    class Idle(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.encoder.requires_grad_(False)
            self.temperature.requires_grad_(False)
            self.matrix, self.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

        def forward(self, rows: np.ndarray, embeddings: Tensor, base: None = None) -> dict[str, Tensor]:
            return {"nothing": 0.0 * (self.matrix.sum() + self.vector.sum())}

    idle = Idle()
    run(idle, tmp_path / "checkpoint", snapshot_at=None)
    assert (idle.matrix < 1).all()
    assert torch.equal(idle.vector.cpu(), torch.ones(2))


def assert_failed_rows_are_saved(file: Path, toy: Toy, step: int) -> None:
    rows = toy.seen[step - 1]
    saved = json.loads((file.parent / "stopped.json").read_text())
    assert saved == {"step": step, "rows": rows, "ids": [f"row {row}" for row in rows]}


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    toy = Toy(nan_at=3)
    with pytest.raises(FloatingPointError, match=r"the loss is not finite at step 3: .*'error': nan.*stopped\.json"):
        run(toy, tmp_path / "checkpoint")
    assert_failed_rows_are_saved(tmp_path / "checkpoint", toy, 3)
    assert not (tmp_path / "checkpoint").exists(), "nothing of a broken run is kept"


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    toy = Toy()
    toy.temperature.register_hook(lambda gradient: gradient * math.inf)
    before = weights(toy)
    with pytest.raises(FloatingPointError, match="the gradient is not finite at step 1"):
        run(toy, tmp_path / "checkpoint")
    assert_same(weights(toy), before)


def test_a_loss_that_explodes_ends_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    """1000 times the usual loss, after the first steps that it is held against."""
    toy = Toy(explode_at=FIRST_STEPS + 3)
    schedule = SCHEDULE.model_copy(update={"steps": 40})
    with pytest.raises(
        FloatingPointError,
        match=rf"the loss exploded: over 5 times .* of the first 20 steps, at step {FIRST_STEPS + 3}",
    ):
        run(toy, tmp_path / "checkpoint", schedule)
    assert_failed_rows_are_saved(tmp_path / "checkpoint", toy, FIRST_STEPS + 3)
    usual, _ = run(Toy(), tmp_path / "usual", schedule)
    assert len(usual) == 40, "a loss that only varies is left alone"


def test_epochs_follow_each_other(tmp_path: Path) -> None:
    toy = Toy()
    run(toy, tmp_path / "checkpoint")
    batches = [rows.tolist() for epoch in range(3) for rows in epoch_batches(epoch)]
    assert toy.seen == batches[:12]
    assert batches[:5] != batches[5:10]


@pytest.mark.parametrize("stop_at", [4, 5, 8, 12])
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path, stop_at: int) -> None:
    whole = Toy()
    curve, snapshot = run(whole, tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        run(Toy(stop_at=stop_at), tmp_path / "stopped")
    again = Toy()
    with torch.no_grad():  # what the new process starts with does not matter
        again.encoder.linear.weight.add_(1)
    torch.manual_seed(99)
    logged: list[int] = []
    again_curve, again_snapshot = run(again, tmp_path / "stopped", log=lambda row, step: logged.append(step))
    assert again.seen == whole.seen[(stop_at - 1) // 3 * 3 :], "what the checkpoint holds is not done again"
    assert_same(weights(again), weights(whole))
    assert_same(again_snapshot, snapshot)
    assert again_curve == curve
    assert logged == list(range(1, 13)), "the curve of a resumed run is complete"


def test_the_snapshot_is_the_model_at_its_step(tmp_path: Path) -> None:
    schedule = SCHEDULE.model_copy(update={"checkpoint_every": 1})
    with pytest.raises(KeyboardInterrupt):
        run(Toy(stop_at=5), tmp_path / "at4", schedule)
    loaded = CheckpointFile(tmp_path / "at4").load()
    assert loaded is not None
    at_four = {key.removeprefix("trained."): value for key, value in loaded[0].items() if key.startswith("trained.")}
    toy = Toy()
    _, snapshot = run(toy, tmp_path / "whole", schedule)
    assert_same(snapshot, at_four)
    assert not torch.equal(snapshot["encoder.backbone.weight"].cpu(), toy.encoder.linear.weight.cpu())
    _, none = run(Toy(), tmp_path / "without", snapshot_at=None)
    assert none == {}


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    toy = Toy()
    curve, _ = run(toy, tmp_path / "checkpoint")
    again = Toy()
    assert run(again, tmp_path / "checkpoint")[0] == curve
    assert again.seen == []
    assert_same(weights(again), weights(toy))


def test_a_full_disk_costs_that_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second of four checkpoints meets a full disk: training goes on, and a kill after it resumes the first."""
    whole = Toy()
    curve, _ = run(whole, tmp_path / "whole")
    real, calls = checkpoints.save_file, []

    def save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        calls.append(path)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:  # what a write that finds no room really raises; Python ignores the signal that comes with it
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 if len(calls) == 2 else limit[0], limit[1]))
            real(tensors, path, metadata)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    monkeypatch.setattr(checkpoints, "save_file", save_file)
    with pytest.raises(KeyboardInterrupt):
        run(Toy(stop_at=8), tmp_path / "checkpoint")
    assert "was not written" in capsys.readouterr().out
    assert len(calls) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "whole"], "nothing is left of the attempt"
    loaded = CheckpointFile(tmp_path / "checkpoint").load()
    assert loaded is not None
    assert loaded[1]["step"] == 3
    again = Toy()
    assert run(again, tmp_path / "checkpoint")[0] == curve
    assert_same(weights(again), weights(whole))


# A real adapter in a process that is killed

SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file
from stages.training.batches import shuffled_batches
from stages.modeling.adapters import add_adapter
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.objectives.retrieval import RetrievalObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.checkpoints import checkpoint_file
from stages.training.loop import TrainingPhase, train
from stages.training.state import trainable
from tests import sections

backbone, output = sys.argv[1:]
torch.manual_seed(5)
encoder = load_encoder(backbone, EncoderSettings("last", {"query": "", "document": ""}, 16))
add_adapter(encoder, "retrieval", 4, 4)
generator = np.random.default_rng(0)
words = [a + b for a in "bcdf" for b in "aeiou"]
texts = [" ".join(generator.choice(words, generator.integers(2, 9))) for _ in range(24)]
teacher = generator.normal(size=(2, 24, 8)).astype(np.float16)
pairs = [TrainingTexts.of(encoder, texts, side, 16, teacher[i]) for i, side in enumerate(("query", "document"))]
negatives = np.stack([np.arange(1, 25) % 24, np.arange(2, 26) % 24], axis=1)
objective = RetrievalObjective(encoder, torch.nn.Linear(32, 8), [16, 32], sections.retrieval(), pairs, negatives)

def log(row, step):
    print("step", step, flush=True)
    time.sleep(0.03)

phase = TrainingPhase("killed", objective, lambda epoch: shuffled_batches(pairs[1].lengths, 6, 1, epoch, "toy"), texts,
              lambda: {"first": float(encoder.encode(texts[:2], "query")[0, 0])})
schedule = sections.schedule(30, evaluate_every=10, checkpoint_every=4)
with checkpoint_file("adapt-retrieval", "key", Path("checkpoints")) as checkpoint:
    curve, snapshot = train(phase, schedule, sections.engine(), checkpoint, log, snapshot_at=9)
    tensors = {f"trained.{name}": value.detach() for name, value in trainable(objective).items()}
    tensors |= {f"snapshot.{name}": value for name, value in snapshot.items()}
    save_file(tensors, output)
    Path(output + ".curve").write_text(repr(curve))
"""


def start(backbone: Path, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(backbone), "trained.safetensors"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
def test_a_run_killed_at_a_random_step_ends_as_one_that_was_not(backbones: dict[str, Path], tmp_path: Path) -> None:
    kill_at = random.SystemRandom().randint(5, 22)
    whole = start(backbones["eurobert"], tmp_path / "whole")
    killed = start(backbones["eurobert"], tmp_path / "killed")
    assert killed.stdout is not None
    for line in killed.stdout:
        if line == f"step {kill_at}\n":
            killed.send_signal(signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL, f"killed at {kill_at}"
    assert whole.communicate()[0].count("step") == 30
    assert whole.returncode == 0
    assert list((tmp_path / "killed" / "checkpoints").rglob("checkpoint.safetensors"))

    again = start(backbones["eurobert"], tmp_path / "killed")
    output, _ = again.communicate()
    assert again.returncode == 0
    assert output.count("step") == 30, "earlier steps are logged again, from the checkpoint"
    for name in ("trained.safetensors", "trained.safetensors.curve"):
        digests = {
            hashlib.sha256((tmp_path / folder / name).read_bytes()).hexdigest() for folder in ("whole", "killed")
        }
        assert len(digests) == 1, f"{name} differs after a kill at step {kill_at}"
    tensors = load_file(tmp_path / "whole" / "trained.safetensors")
    assert "trained.temperature.logarithm" in tensors
    assert "snapshot.temperature.logarithm" in tensors
    assert math.exp(tensors["trained.temperature.logarithm"]) != pytest.approx(0.05, rel=1e-3), "it was learned"
