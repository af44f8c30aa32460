"""A person's files, copied below data/sources, where DVC watches them."""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages.recipe.paths import SOURCES

LISTED_FILES = 10  # more files of a folder are named by a pattern


def bring(paths: Sequence[Path], files: Sequence[Path], force: bool) -> list[str]:
    """Copy files below data/sources, where DVC watches them, and return where they are.

    Raises:
        ValueError: another file of that name is there.
    """
    here: list[Path] = []
    root = SOURCES.resolve()
    names = Counter(path.name for path in paths)
    for file in files:
        if file.resolve().is_relative_to(root):
            inside = file.resolve().relative_to(root)
        else:
            base = next(path for path in paths if file == path or path in file.parents)
            inside = Path(base.resolve().name) / file.relative_to(base) if file != base else Path(file.name)
            inside = Path(base.resolve().parent.name) / inside if names[base.name] > 1 else inside
            inside = Path(*(re.sub(r"[\[\]*?]", "_", part) for part in inside.parts))
            target = SOURCES / inside
            if target.exists() and target.read_bytes() != file.read_bytes() and not force:
                raise ValueError(f"{target}: another file is there; remove it, rename {file}, or use --force")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        here.append(SOURCES / inside)
    return _locations(here)


def _locations(files: Sequence[Path]) -> list[str]:
    """Name a few files each by itself, and many by patterns, so that a file that joins the folder is read too."""
    if len(files) <= LISTED_FILES:
        return [str(file) for file in files]
    top = len(SOURCES.parts) + 1
    folders = {Path(*file.parts[:top]) for file in files if len(file.parts) > top}
    inside = {f"{folder}/**/*{file.suffix}" for file in files for folder in folders & set(file.parents)}
    return sorted(inside | {str(file) for file in files if len(file.parts) == top})
