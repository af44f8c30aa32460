"""The state of a working folder, to be compared with that from which a version was registered."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.tracking.digests import digest
from stages.tracking.git import git_state

LOCK = Path("dvc.lock")


def provenance(release: Path) -> dict[str, Any]:
    """Return a release's commit, whether files differed from it or do now, digests of dvc.lock and release.

    None stands for what is not known.
    """
    lineage = release / "lineage.json"
    built = json.loads(lineage.read_text(encoding="utf-8")) if lineage.is_file() else {}
    states = {built.get("git_dirty"), git_state()[1]}
    return {
        "git_sha": built.get("git_sha"),
        "git_dirty": True if True in states else None if None in states else False,
        "dvc_lock": lock_digest(),
        "release_digest": digest(release) if release.is_dir() else None,
    }


def lock_digest() -> str | None:
    """Return the SHA-256 of dvc.lock without the entry of promote, which DVC writes when that stage has ended."""
    if not LOCK.exists():
        return None
    stages = YAML(typ="safe").load(LOCK)["stages"]
    stages.pop("promote", None)
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=str).encode()).hexdigest()
