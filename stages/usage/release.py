"""The release that the last build made, and its model of a task as Sentence Transformers loads it."""

import logging
from pathlib import Path

from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from stages.recipe.paths import QUANTIZED


def release_folder(given: Path | None) -> Path:
    """Return the given release folder, or the one of the last build.

    Raises:
        ValueError: there is no release there.
    """
    found = sorted(path.parent for path in QUANTIZED.glob("*/merged")) if given is None else [given]
    if not found or not (found[0] / "merged").is_dir():
        place = QUANTIZED if given is None else given
        raise ValueError(f"{place}: no release is there; run `make build` first, or name its folder with --release")
    return found[0]


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
