"""Confinement: a recipe reads from its workspace, packages, the hub, buckets and web servers, and nowhere else.

More people write recipes than may read the worker's disk. The operator of a worker names further folders that recipes
may read, such as a mounted store of models, in STILLHOUSE_MOUNTS.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MOUNTS = "STILLHOUSE_MOUNTS"
# Keys of a recipe, at any depth, whose values are paths or addresses.
PLACES = {"files", "folder", "path", "student"}
_REMOTE = re.compile(r"^(https?|s3|gs|az)://")


def mounts() -> list[Path]:
    """List the folders outside a workspace that recipes may read on this machine."""
    return [Path(name) for name in os.environ.get(MOUNTS, "").split(os.pathsep) if name]


def check_places(recipe: Mapping[str, Any], folder: Path, allowed: Sequence[Path]) -> None:
    """Refuse a recipe that names a path outside its workspace.

    Args:
        recipe: values of the recipe file.
        folder: the workspace, to which paths are relative.
        allowed: further folders that the recipe may read.

    Raises:
        ValueError: one line for each refused path, with its key.
    """
    inside = [root.resolve() for root in (folder, *allowed)]
    refused = [
        f"{key}: {place!r} leads out of the workspace; put it under data/sources, name a package:, hub:, https:// or "
        f"s3:// address, or have the operator of the worker allow its folder in {MOUNTS}"
        for key, place in places(recipe)
        if not _stays(place, folder, inside)
    ]
    if refused:
        raise ValueError("\n".join(refused))


def places(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the value of every path and address in a recipe."""
    parts = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for name, value in parts:
        inner = f"{key}.{name}".lstrip(".")
        if name in PLACES and isinstance(value, str):
            yield inner, value
        elif name in PLACES and isinstance(value, list) and all(isinstance(part, str) for part in value):
            yield from ((f"{inner}.{number}", part) for number, part in enumerate(value))
        else:
            yield from places(value, inner)


def _stays(place: str, folder: Path, inside: Sequence[Path]) -> bool:
    if _REMOTE.match(place):
        return True
    if place.startswith("package:"):
        return ".." not in Path(place).parts and not place.removeprefix("package:").startswith(("/", "~"))
    place = place.removeprefix("hub:")
    if "://" in place or "::" in place or place.startswith("~") or ".." in Path(place).parts:
        return False
    fixed = Path(re.split(r"[*?\[]", place)[0])  # the part before a glob's first wildcard
    candidates = [folder / fixed]
    if not Path(place).is_absolute():
        candidates += folder.glob(place) if place else []
    return all(any(path.resolve().is_relative_to(root) for root in inside) for path in candidates)
