"""A check of DVC's cache before it is read, because DVC trusts the name of a write-protected object."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.workspace import LOCK, cache_folder

FOLDER = ".dir"  # suffix of an object that lists the files of a folder


def remove_damaged(folder: Path) -> list[str]:
    """Delete cached objects whose content does not match the digest in dvc.lock, and return the paths of their outputs.

    The stages that made these outputs become stale and run again, or the outputs come from the remote.
    """
    lock = folder / LOCK
    stages: Mapping[str, Any] = YAML(typ="safe").load(lock)["stages"] if lock.is_file() else {}
    outputs = {out["md5"]: out["path"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
    cache = cache_folder(folder) / "files/md5"
    damaged = _delete_damaged(cache, outputs)
    inside: dict[str, str] = {}
    for name, path in outputs.items():
        if name.endswith(FOLDER) and (listing := _object(cache, name)).is_file():
            inside |= {one["md5"]: f"{path}/{one['relpath']}" for one in json.loads(listing.read_bytes())}
    return sorted([*damaged, *_delete_damaged(cache, inside)])


def _object(cache: Path, name: str) -> Path:
    return cache / name[:2] / name[2:]


def _delete_damaged(cache: Path, names: Mapping[str, str]) -> list[str]:
    def good(name: str) -> bool:
        file = _object(cache, name)
        if not file.is_file():
            return True  # an absent object is not damaged
        with file.open("rb") as content:
            return hashlib.file_digest(content, "md5").hexdigest() == name.removesuffix(FOLDER)

    with ThreadPoolExecutor() as pool:
        bad = [name for name, is_good in zip(names, pool.map(good, names), strict=True) if not is_good]
    for name in bad:
        _object(cache, name).unlink()
    return [names[name] for name in bad]
