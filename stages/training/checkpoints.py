"""Checkpoints outside DVC's outputs: one safetensors file that holds all a run needs to go on bit for bit.

A run's folder is named by a hash of its parameters, inputs and code, so a checkpoint of another recipe, other data or
other code is never resumed. A file lock keeps a second writer out. Folders that nobody goes on with are removed.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(".stillhouse/checkpoints")
CHECKSUM = "xxh3_128"
LOCK = "writer.lock"
# A checkpoint that has not changed for so long is of code or a recipe that nobody goes on with.
ABANDONED_DAYS = 30


@dataclass(frozen=True)
class CheckpointFile:
    """The one checkpoint of a run, replaced as a whole each time."""

    path: Path

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write beside, flush to disk, rename; the earlier checkpoint stands until then.

        Raises:
            OSError: it could not be written, for example because the disk is full; nothing is left of the attempt.
        """
        partial = self.path.with_suffix(".partial")
        content = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
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
        """Tensors and state of the last checkpoint, or None where there is none, or only a damaged one.

        A run from the start ends as one from a checkpoint, so a damaged one costs time alone.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no iterator)
                known = stored.metadata() or {}
        except SafetensorError:
            known = {}
        if CHECKSUM in known and known[CHECKSUM] == _checksum(tensors, known["state"]):
            return tensors, json.loads(known["state"])
        print(f"checkpoint {self.path} is damaged: training begins anew")
        return None


def _checksum(tensors: Mapping[str, Tensor], state: str) -> str:
    """Of all that a checkpoint holds: a disk may give back other bits than it was given."""
    total = xxhash.xxh3_128(state.encode())
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        total.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@contextmanager
def checkpoint_file(stage: str, key: str, *, writer: bool = True, root: Path = ROOT) -> Iterator[CheckpointFile]:
    """Hold the only right to write a run's checkpoint; the checkpoint is removed when the block ends well.

    A writer also removes what other runs of the stage abandoned.

    Args:
        key: the run's, and behind a dash the checkpoint's name where a run has several.
        writer: false for the other processes of a run, which only read it.

    Raises:
        RuntimeError: another process trains the same run, for example one that outlived a killed pipeline.
    """
    folder = root / stage / key
    if not writer:
        yield CheckpointFile(folder / "checkpoint.safetensors")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    with FileLock(folder.parent / "opening.lock"):  # else one writer could remove a folder while another opens it
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
    """Remove the folders beside a run's own that nobody holds and nothing changed in for ABANDONED_DAYS.

    What cannot be looked at or removed stays.
    """
    oldest = time.time() - ABANDONED_DAYS * 86_400
    run = own.name.partition("-")[0]
    for folder in own.parent.iterdir():
        if folder.is_dir() and folder.name.partition("-")[0] != run:
            with suppress(OSError), FileLock(folder / LOCK).acquire(timeout=0):  # Timeout is an OSError
                if max(one.stat().st_mtime for one in (folder, *folder.iterdir())) < oldest:
                    shutil.rmtree(folder)


def run_key(params: Mapping[str, Any], inputs: Sequence[Path], code: Path = Path("stages")) -> str:
    """Hash of everything that decides a training run: parameters, input files and source code."""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode())
    sources = sorted(code.rglob("*.py"))
    for path in [
        *sources,
        *(file for place in inputs for file in (place, *sorted(place.rglob("*"))) if file.is_file()),
    ]:
        digest.update(str(path).encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def rng_state() -> dict[str, Tensor]:
    """States of torch's generators, the only ones the loop draws from."""
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's generators to saved states."""
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
