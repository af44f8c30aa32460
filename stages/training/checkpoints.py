"""Checkpoints outside DVC's outputs: a safetensors file with everything that a run needs to resume bit for bit.

A run's folder is named by a hash of its parameters, inputs and code, so a checkpoint of another recipe, other data or
other code is never resumed. A file lock keeps a second writer out. Folders of runs that nobody resumes are removed.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import xxhash
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.recipe.paths import CHECKPOINTS
from stages.tracking.main_process import is_main_process

CHECKSUM = "xxh3_128"
LOCK = "writer.lock"
# A checkpoint that has not changed for so many days belongs to code or to a recipe that nobody uses any more.
ABANDONED_DAYS = 30
# Code that changes no weight: the recipe's values are part of the key, and records are written beside the training.
NOT_IN_KEY = ("stages.recipe", "stages.entry", "stages.tracking")


@dataclass(frozen=True)
class CheckpointFile:
    """The checkpoint of a run, replaced as a whole each time."""

    path: Path

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a new file, flush it to disk and rename it; the earlier checkpoint stands until then.

        Raises:
            OSError: it could not be written, for example because the disk is full; nothing of the attempt is left.
        """
        partial = self.path.with_suffix(".partial")
        content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(state)
        try:
            save_file(content, partial, {"state": text, CHECKSUM: _checksum(content, text)})
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(self.path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"checkpoint {self.path} was not written: {error}") from error

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and state of the last checkpoint; None where there is none, or only a damaged one.

        A run from the start ends like a resumed run, so a damaged checkpoint only costs time.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no iterator)
                metadata = stored.metadata() or {}
        except SafetensorError:
            metadata = {}
        if CHECKSUM in metadata and metadata[CHECKSUM] == _checksum(tensors, metadata["state"]):
            return tensors, json.loads(metadata["state"])
        print(f"checkpoint {self.path} is damaged: training begins anew")
        return None


def _checksum(tensors: Mapping[str, Tensor], state: str) -> str:
    """Hash everything that a checkpoint holds, because a disk may return other bits than were written."""
    total = xxhash.xxh3_128(state.encode())
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        total.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@contextmanager
def checkpoint_file(stage: str, key: str, root: Path = CHECKPOINTS) -> Iterator[CheckpointFile]:
    """Hold the right to write a run's checkpoint; the checkpoint is removed when the block ends well.

    Only the main process writes, and it also removes the folders of abandoned runs of the stage. The other processes of
    a run only read.

    Args:
        key: the run's key; where a run has several checkpoints, their names follow behind a dash.

    Raises:
        RuntimeError: another process trains the same run, for example one that outlived a killed pipeline.
    """
    folder = root / stage / key
    if not is_main_process():
        yield CheckpointFile(folder / "checkpoint.safetensors")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    with FileLock(folder.parent / "opening.lock"):  # no writer removes a folder while another opens it
        folder.mkdir(exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RuntimeError(f"another process is training {stage} in {folder}; wait for it or stop it") from error
        _remove_abandoned(folder)
    try:
        file = CheckpointFile(folder / "checkpoint.safetensors")
        yield file
        file.path.unlink(missing_ok=True)
    finally:
        lock.release()


def _remove_abandoned(own: Path) -> None:
    """Remove the folders beside a run's own that no process holds and that have not changed for ABANDONED_DAYS."""
    oldest = time.time() - ABANDONED_DAYS * 86_400
    run = own.name.partition("-")[0]
    for folder in own.parent.iterdir():
        if folder.is_dir() and folder.name.partition("-")[0] != run:
            # What cannot be read or removed stays; filelock's Timeout is an OSError too.
            with suppress(OSError), FileLock(folder / LOCK).acquire(timeout=0):
                if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < oldest:
                    shutil.rmtree(folder)


def run_key(params: Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """Hash everything that decides the weights of a training run: parameters, input files, and the code in use."""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode())
    files = {str(path): path for folder in inputs for path in (folder, *sorted(folder.rglob("*"))) if path.is_file()}
    for name, path in (code_in_use(sys.modules) | files).items():
        digest.update(name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def code_in_use(modules: Mapping[str, ModuleType]) -> dict[str, Path]:
    """Find the source files of the modules of stages/ that decide the weights, by module name.

    Stage modules import at their top, so the modules that a stage's process has loaded are those that the stage uses.

    Args:
        modules: the loaded modules, as in `sys.modules`.
    """
    return {
        name: Path(module.__file__)
        for name, module in sorted(modules.items())
        if name.startswith("stages.") and not name.startswith(NOT_IN_KEY) and module.__file__
    }


def rng_state() -> dict[str, Tensor]:
    """Return the states of torch's generators; the loop draws from no others."""
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's generators to saved states."""
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
