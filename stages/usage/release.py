"""The release that a command uses, and its model of a task as Sentence Transformers loads it."""

import logging
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from stages.recipe.paths import QUANTIZED
from stages.recipe.recipe import read
from stages.registry.store import champion_files


@dataclass(frozen=True)
class ReleaseInUse:
    """A release that a command uses: the folder with `merged/<task>/` and calibration.json, and how it was chosen."""

    chosen: str
    folder: Path


def release_in_use(given: Path | None) -> ReleaseInUse:
    """Choose the given release folder, else the registry's champion, else the release of the last build.

    Raises:
        ValueError: there is no release there, or the registry cannot be read.
    """
    if given is not None:
        if not (given / "merged").is_dir():
            raise ValueError(f"{given}: no release is there; give a folder such as {QUANTIZED}/NAME with --release")
        return ReleaseInUse(f"{given.name}, as given", given)
    name = read().promote.registered_model
    try:
        champion = champion_files(name)
    except ValueError as error:
        raise ValueError(f"{error}; name a release folder with --release to do without the registry") from error
    if champion is not None:
        return ReleaseInUse(f"{name} version {champion[0]}, the champion", champion[1])
    built = sorted(path.parent for path in QUANTIZED.glob("*/merged"))
    if not built:
        raise ValueError(f"{QUANTIZED}: no release is there; run `make build` first, or name its folder with --release")
    return ReleaseInUse(f"{built[0].name}, the last build (no champion yet)", built[0])


def task_model(release: Path, task: str) -> SentenceTransformer:
    """Load a release's model of a task.

    Raises:
        ValueError: the release has no such task.
    """
    tasks = sorted(path.name for path in (release / "merged").iterdir())
    if task not in tasks:
        raise ValueError(f"{release}: got task {task!r}, expected one of this release's: {', '.join(tasks)}")
    disable_progress_bar()  # of the weights, which load in a moment
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    return SentenceTransformer(str(release / "merged" / task), local_files_only=True)
