"""What a working folder holds now, to be compared with what a version was registered from."""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.training.tracking import digest, git_state

LOCK = Path("dvc.lock")


def provenance(release: Path) -> dict[str, Any]:
    """Commit, whether files differ from it, digests of dvc.lock, a release and its served models; None: unknown."""
    commit, dirty = git_state()
    return {
        "git_sha": commit,
        "git_dirty": dirty,
        "dvc_lock": lock_digest(),
        "release_digest": digest(release) if release.is_dir() else None,
        "served_digest": digest(release / "merged") if release.is_dir() else None,
    }


def lock_digest() -> str | None:
    """SHA-256 of dvc.lock without the entry of promote, which DVC writes when that stage has ended."""
    from ruamel.yaml import YAML

    if not LOCK.exists():
        return None
    stages = YAML(typ="safe").load(LOCK)["stages"]
    stages.pop("promote", None)
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=str).encode()).hexdigest()
