"""A recipe reads from its workspace, packages, the hub, buckets and web servers: never from elsewhere on the machine.

Recipes are written by more people than may read the worker's disk. Folders outside that they may read, such as a
mounted store of models, are named by whoever runs the worker, in STILLHOUSE_MOUNTS.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MOUNTS = "STILLHOUSE_MOUNTS"
# Keys of a recipe whose values are places, wherever they stand in it.
PLACES = {"files", "folder", "path", "student"}
_REMOTE = re.compile(r"^(https?|s3|gs|az)://")


def mounts() -> list[Path]:
    """Folders outside a workspace that recipes may read here."""
    return [Path(name) for name in os.environ.get(MOUNTS, "").split(os.pathsep) if name]


def check_places(recipe: Mapping[str, Any], folder: Path, allowed: Sequence[Path]) -> None:
    """Refuse a recipe that names a place outside its workspace.

    Args:
        recipe: its values as they were read.
        folder: the workspace, on which relative paths stand.
        allowed: other folders that it may read.

    Raises:
        ValueError: one line for each such place, with its key.
    """
    inside = [one.resolve() for one in (folder, *allowed)]
    refused = [
        f"{key}: {place!r} leads out of the workspace; put it under data/sources, name a package:, hub:, https:// or "
        f"s3:// place, or have whoever runs the worker allow its folder in {MOUNTS}"
        for key, place in places(recipe)
        if not _stays(place, folder, inside)
    ]
    if refused:
        raise ValueError("\n".join(refused))


def places(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every place that a recipe names, with its dotted key."""
    parts = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for name, value in parts:
        inner = f"{key}.{name}".lstrip(".")
        if name in PLACES and isinstance(value, str):
            yield inner, value
        elif name in PLACES and isinstance(value, list) and all(isinstance(one, str) for one in value):
            yield from ((f"{inner}.{number}", one) for number, one in enumerate(value))
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
    fixed = Path(re.split(r"[*?\[]", place)[0])  # of a glob the part before its first wildcard
    candidates = [folder / fixed]
    if not Path(place).is_absolute():
        candidates += folder.glob(place) if place else []
    return all(any(one.resolve().is_relative_to(root) for root in inside) for one in candidates)
