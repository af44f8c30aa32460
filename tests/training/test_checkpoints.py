"""Checkpoints: what a run's key follows, who may write, and when a folder is removed."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock

from stages.training.checkpoints import checkpoint_file, run_key

ROOT = Path(__file__).resolve().parents[2]


def test_key_follows_parameters_inputs_and_the_code_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, code = tmp_path / "curated", tmp_path / "stages"
    (inputs / "pairs").mkdir(parents=True)
    code.mkdir()
    rows, projection = inputs / "pairs" / "train.parquet", tmp_path / "projection.safetensors"
    for file in (rows, projection, code / "loss.py", code / "report.py", code / "recipe.py"):
        file.write_text("before")
    load_module(monkeypatch, "stages.loss", code / "loss.py")
    load_module(monkeypatch, "stages.recipe.section", code / "recipe.py")

    def key(**params: Any) -> str:
        return run_key({"seed": 1, **params}, [inputs, projection])

    first = key()
    assert key() == first
    keys = {first, key(seed=2), key(rank=2)}
    for file in (rows, inputs / "pairs" / "dev.parquet", projection, code / "loss.py"):
        file.write_text("after")
        keys.add(key())
    assert len(keys) == 7
    last = key()
    for file in (code / "report.py", code / "recipe.py"):
        file.write_text("after")
        assert key() == last, f"{file.name} decides no weight, or is in the key by its values"


def load_module(monkeypatch: pytest.MonkeyPatch, name: str, file: Path) -> None:
    """Have a file be a loaded module of stages/."""
    module = ModuleType(name)
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.slow
def test_a_training_stage_uses_its_losses_and_loop_but_no_report() -> None:
    script = "import sys, stages.distill; from stages.training.checkpoints import code_in_use; "
    script += "print(*code_in_use(sys.modules))"
    command = [sys.executable, "-c", script]
    used = set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())
    assert {"stages.distill", "stages.losses.distillation", "stages.training.loop", "stages.modeling.encoder"} <= used
    other_rooms = (
        "recipe",
        "entry",
        "tracking",
        "reporting",
        "release",
        "registry",
        "evaluation",
        "planning",
        "mining",
    )
    assert not [name for name in used if name.split(".")[1] in other_rooms]


def test_another_key_is_another_checkpoint_and_a_good_end_removes_it(tmp_path: Path) -> None:
    def stop_after_a_step() -> None:
        with checkpoint_file("distill", "one", tmp_path) as one:
            one.save({"weight": torch.ones(2)}, {"step": 1})
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        stop_after_a_step()
    with checkpoint_file("distill", "two", tmp_path) as two:
        assert two.load() is None
        two.save({"weight": torch.zeros(2)}, {"step": 9})
    with checkpoint_file("adapt-retrieval", "one", tmp_path) as other:
        assert other.load() is None
    with checkpoint_file("distill", "one", tmp_path) as one:
        loaded = one.load()
        assert loaded is not None
        assert torch.equal(loaded[0]["weight"], torch.ones(2))
        assert loaded[1] == {"step": 1}
    assert not two.path.exists()
    assert not one.path.exists()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stages.training.checkpoints import checkpoint_file\n"
        f"with checkpoint_file('distill', 'key', Path({str(tmp_path)!r})):\n"
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
            checkpoint_file("distill", "key", tmp_path),
        ):
            pass
        with checkpoint_file("distill", "other", tmp_path) as other:
            assert other.load() is None
    finally:
        holder.kill()
        holder.wait()
    with checkpoint_file("distill", "key", tmp_path) as file:  # a killed writer holds nothing
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


def test_a_writer_removes_what_others_of_its_stage_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young = left_behind(tmp_path / "distill/old-student", 31), left_behind(tmp_path / "distill/young", 29)
    held, elsewhere = left_behind(tmp_path / "distill/held", 31), left_behind(tmp_path / "extend/old", 31)
    own = [left_behind(tmp_path / f"distill/own-{part}", 31) for part in ("student", "continued")]
    written = left_behind(tmp_path / "distill/written", 31)
    (written / "stopped.json").touch()
    with monkeypatch.context() as other_process:
        other_process.setenv("RANK", "1")
        with checkpoint_file("distill", "reader", tmp_path):
            assert old.exists(), "a process that only reads removes nothing"
    with FileLock(held / "writer.lock"):
        for _ in range(2):
            with checkpoint_file("distill", "own-student", tmp_path):
                assert not old.exists()
                assert all(one.exists() for one in (young, held, elsewhere, *own, written))
    with checkpoint_file("distill", "own-continued", tmp_path):
        assert not held.exists(), "its writer is gone"


def test_a_folder_is_not_removed_while_it_is_opened(tmp_path: Path) -> None:
    """A writer waits for another that removes abandoned folders, its own among them, and finds the place free."""
    folder = left_behind(tmp_path / "distill/old", 31)
    opened = threading.Event()

    def open_it() -> None:
        with checkpoint_file("distill", "old", tmp_path) as file:
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
