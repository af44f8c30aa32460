"""What a working folder holds now, to be compared with what a version was registered from."""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.tracking.runs import digest, git_state

LOCK = Path("dvc.lock")
LINEAGE = "lineage.json"


def provenance(release: Path) -> dict[str, Any]:
    """Commit of a release, whether files differed from it or do now, digests of dvc.lock and release; None: unknown."""
    lineage = release / LINEAGE
    built = json.loads(lineage.read_text(encoding="utf-8")) if lineage.is_file() else {}
    _, dirty = git_state()
    return {
        "git_sha": built.get("git_sha"),
        "git_dirty": built.get("git_dirty") or dirty,
        "dvc_lock": lock_digest(),
        "release_digest": digest(release) if release.is_dir() else None,
    }


def lock_digest() -> str | None:
    """SHA-256 of dvc.lock without the entry of promote, which DVC writes when that stage has ended."""
    from ruamel.yaml import YAML

    if not LOCK.exists():
        return None
    stages = YAML(typ="safe").load(LOCK)["stages"]
    stages.pop("promote", None)
    return hashlib.sha256(json.dumps(stages, sort_keys=True, default=str).encode()).hexdigest()
