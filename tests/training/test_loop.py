"""The training loop over a toy objective, and over a real one in a process that is killed."""

import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.training import checkpoints
from stages.training.batches import shuffled_batches
from stages.training.checkpoints import CheckpointFile, checkpoint_file, run_key
from stages.training.curves import read_curve, write_curve
from stages.training.loop import FIRST_STEPS, EngineSettings, train
from stages.training.state import Curve, Schedule, trained

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20
SCHEDULE = Schedule(
    steps=12,
    learning_rate=0.05,
    warmup_ratio=0.25,
    weight_decay=0.1,
    max_grad_norm=1.0,
    evaluate_every=5,
    checkpoint_every=3,
)


ENGINE = EngineSettings(
    threads=1,
    processes=1,
    precision="float32",
    micro_batch_tokens=64,
    packing=False,
    gradient_checkpointing=False,
    compile=False,
    shard=False,
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

    return train(
        objective,
        epoch_batches,
        schedule,
        CheckpointFile(file),
        engine=ENGINE,
        ids=[f"row {row}" for row in range(ROWS)],
        name="toy",
        evaluate=evaluate,
        log=log,
        snapshot_at=snapshot_at,
    )


def state(objective: nn.Module) -> dict[str, Tensor]:
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
    before = state(toy)
    curve, _ = run(toy, tmp_path / "checkpoint")
    assert curve[-1]["dev_error"] < curve[4]["dev_error"]
    assert set(trained(toy)) == {"encoder.backbone.weight", "encoder.backbone.bias", "temperature"}
    for name, value in state(toy).items():
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
    schedule = Schedule(**{**vars(SCHEDULE), "max_grad_norm": 0.1})
    curve, _ = run(Toy(), tmp_path / "checkpoint", schedule)
    assert min(row["gradient_norm"] for row in curve) > 0.1, "the curve keeps what it was before clipping"
    assert gradient_norms == pytest.approx([0.1] * 12, rel=1e-4)


def test_small_gradients_are_left_as_they_are(tmp_path: Path, gradient_norms: list[float]) -> None:
    schedule = Schedule(**{**vars(SCHEDULE), "max_grad_norm": 1000.0})
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


def stopped_rows(file: Path, toy: Toy, step: int) -> None:
    kept = json.loads((file.parent / "stopped.json").read_text())
    assert kept["step"] == step
    assert kept["rows"] == toy.seen[step - 1]
    assert kept["ids"] == [f"row {row}" for row in toy.seen[step - 1]]


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    toy = Toy(nan_at=3)
    with pytest.raises(FloatingPointError, match=r"the loss is not finite at step 3: .*'error': nan.*stopped\.json"):
        run(toy, tmp_path / "checkpoint")
    stopped_rows(tmp_path / "checkpoint", toy, 3)
    assert not (tmp_path / "checkpoint").exists(), "nothing of a broken run is kept"


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    toy = Toy()
    toy.temperature.register_hook(lambda gradient: gradient * math.inf)
    before = state(toy)
    with pytest.raises(FloatingPointError, match="the gradient is not finite at step 1"):
        run(toy, tmp_path / "checkpoint")
    assert_same(state(toy), before)


def test_a_loss_that_explodes_ends_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    """1000 times the usual loss, after the first steps that it is held against."""
    toy = Toy(explode_at=FIRST_STEPS + 3)
    schedule = Schedule(**{**vars(SCHEDULE), "steps": 40})
    with pytest.raises(FloatingPointError, match=rf"the loss exploded: over 5\.0 times .* at step {FIRST_STEPS + 3}"):
        run(toy, tmp_path / "checkpoint", schedule)
    stopped_rows(tmp_path / "checkpoint", toy, FIRST_STEPS + 3)
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
    assert_same(state(again), state(whole))
    assert_same(again_snapshot, snapshot)
    assert again_curve == curve
    assert logged == list(range(1, 13)), "the curve of a resumed run is complete"


def test_the_snapshot_is_the_model_at_its_step(tmp_path: Path) -> None:
    schedule = Schedule(**{**vars(SCHEDULE), "checkpoint_every": 1})
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
    assert_same(state(again), state(toy))


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
    assert_same(state(again), state(whole))


# Keys and locks


def test_key_follows_parameters_inputs_and_code(tmp_path: Path) -> None:
    inputs, code = tmp_path / "curated", tmp_path / "stages"
    (inputs / "pairs").mkdir(parents=True)
    code.mkdir()
    (inputs / "pairs" / "train.parquet").write_bytes(b"rows")
    (code / "distill.py").write_text("pass\n")
    single = tmp_path / "projection.safetensors"
    single.write_bytes(b"1")

    def key(**params: Any) -> str:
        return run_key({"seed": 1, **params}, [inputs, single], code)

    first = key()
    assert key() == first
    keys = {first, key(seed=2), key(rank=2)}
    for file, content in [
        (inputs / "pairs" / "train.parquet", "other rows"),
        (inputs / "pairs" / "dev.parquet", "new"),
        (single, "2"),
        (code / "distill.py", "pass  # other\n"),
        (code / "adapt.py", ""),
    ]:
        file.write_text(content)
        keys.add(key())
    assert len(keys) == 8


def test_another_key_is_another_checkpoint_and_a_good_end_removes_it(tmp_path: Path) -> None:
    def stop_after_a_step() -> None:
        with checkpoint_file("distill", "one", root=tmp_path) as one:
            one.save({"weight": torch.ones(2)}, {"step": 1})
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        stop_after_a_step()
    with checkpoint_file("distill", "two", root=tmp_path) as two:
        assert two.load() is None
        two.save({"weight": torch.zeros(2)}, {"step": 9})
    with checkpoint_file("adapt-retrieval", "one", root=tmp_path) as other:
        assert other.load() is None
    with checkpoint_file("distill", "one", root=tmp_path) as one:
        loaded = one.load()
        assert loaded is not None
        assert torch.equal(loaded[0]["weight"], torch.ones(2))
        assert loaded[1] == {"step": 1}
    assert not two.path.exists()
    assert not one.path.exists()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stages.training.checkpoints import checkpoint_file\n"
        f"with checkpoint_file('distill', 'key', root=Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RuntimeError, match=r"another process is training distill in .*wait for it or stop it"),
            checkpoint_file("distill", "key", root=tmp_path),
        ):
            pass
        with checkpoint_file("distill", "other", root=tmp_path) as other:
            assert other.load() is None
    finally:
        holder.kill()
        holder.wait()
    with checkpoint_file("distill", "key", root=tmp_path) as file:  # a killed writer holds nothing
        assert file.load() is None


def left_behind(folder: Path, days: float) -> Path:
    """A run's folder whose last change is so many days ago."""
    folder.mkdir(parents=True)
    changed = time.time() - days * 86_400
    for path in (folder / "writer.lock", folder / "checkpoint.safetensors", folder):
        if path != folder:
            path.write_bytes(b"")
        os.utime(path, (changed, changed))
    return folder


def test_a_writer_removes_what_others_of_its_stage_abandoned(tmp_path: Path) -> None:
    old, young = left_behind(tmp_path / "distill/old-student", 31), left_behind(tmp_path / "distill/young", 29)
    held, elsewhere = left_behind(tmp_path / "distill/held", 31), left_behind(tmp_path / "extend/old", 31)
    own = [left_behind(tmp_path / f"distill/own-{part}", 31) for part in ("student", "continued")]
    written = left_behind(tmp_path / "distill/written", 31)
    (written / "stopped.json").touch()
    with checkpoint_file("distill", "reader", writer=False, root=tmp_path):
        assert old.exists(), "who only reads removes nothing"
    with FileLock(held / "writer.lock"):
        for _ in range(2):
            with checkpoint_file("distill", "own-student", root=tmp_path):
                assert not old.exists()
                assert all(one.exists() for one in (young, held, elsewhere, *own, written))
    with checkpoint_file("distill", "own-continued", root=tmp_path):
        assert not held.exists(), "its writer is gone"


def test_a_folder_is_not_removed_while_it_is_opened(tmp_path: Path) -> None:
    """A writer waits for another that removes abandoned folders, its own among them, and finds the place free."""
    folder = left_behind(tmp_path / "distill/old", 31)
    opened = threading.Event()

    def open_it() -> None:
        with checkpoint_file("distill", "old", root=tmp_path) as file:
            file.save({"weight": torch.ones(2)}, {"step": 1})
            opened.set()

    with FileLock(tmp_path / "distill/opening.lock"):
        writer = threading.Thread(target=open_it)
        writer.start()
        assert not opened.wait(0.3)
        shutil.rmtree(folder)
    assert opened.wait(10)
    writer.join()
    assert (folder / "writer.lock").exists()


# A real adapter in a process that is killed

SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file
from stages.training.batches import shuffled_batches
from stages.modeling.adapters import add_adapter
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.objectives.retrieval import Retrieval
from stages.objectives.training_texts import texts_of
from stages.training.checkpoints import checkpoint_file
from stages.training.loop import EngineSettings, train
from stages.training.state import Schedule, trained

backbone, output = sys.argv[1:]
torch.manual_seed(5)
encoder = load_encoder(backbone, EncoderSettings("last", {"query": "", "document": ""}, 16))
add_adapter(encoder, "retrieval", 4, 4)
generator = np.random.default_rng(0)
words = [a + b for a in "bcdf" for b in "aeiou"]
texts = [" ".join(generator.choice(words, generator.integers(2, 9))) for _ in range(24)]
teacher = generator.normal(size=(2, 24, 8)).astype(np.float16)
sides = [texts_of(encoder, texts, side, 16, teacher[i]) for i, side in enumerate(("query", "document"))]
negatives = np.stack([np.arange(1, 25) % 24, np.arange(2, 26) % 24], axis=1)
objective = Retrieval(encoder, torch.nn.Linear(32, 8), [16, 32], *sides, negatives,
                      temperature=0.05, false_negative_margin=None, info_nce=1.0, distillation=2.0, spread_out=1.0)

def log(row, step):
    print("step", step, flush=True)
    time.sleep(0.03)

with checkpoint_file("adapt-retrieval", "key", root=Path("checkpoints")) as checkpoint:
    curve, snapshot = train(
        objective, lambda epoch: shuffled_batches(sides[1].lengths, 6, 1, epoch, 'toy'),
        Schedule(30, 1e-2, 0.1, 0.0, 1.0, 10, 4), checkpoint,
        engine=EngineSettings(1, 1, "float32", 64, False, False, False, False), ids=texts,
        name="killed", evaluate=lambda: {"first": float(encoder.encode(texts[:2], "query")[0, 0])},
        log=log, snapshot_at=9)
    tensors = {f"trained.{name}": value.detach() for name, value in trained(objective).items()}
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
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "whole" / "trained.safetensors")
    assert "trained.temperature.logarithm" in tensors
    assert "snapshot.temperature.logarithm" in tensors
    assert math.exp(tensors["trained.temperature.logarithm"]) != pytest.approx(0.05, rel=1e-3), "it was learned"
