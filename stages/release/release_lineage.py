"""Lineage of a release: the content of its lineage.json, and the MLflow runs, which are recorded beside the release."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.recipe.paths import LINEAGE
from stages.tracking.git import git_state
from stages.tracking.lineage import read_lineages

# The last three are null where git or DVC are not used.
FIELDS = ("name", "license", "teacher", "sources", "recipe_sha256", "git_sha", "git_dirty", "dvc_lock_sha256")
# Outputs under data/ whose files name a run or a time: they differ between two builds of one commit.
RECORDS = (LINEAGE.name, "validated")


def lineage(facts: Mapping[str, Any], recipe: Any, lock: Path, stages: Sequence[str]) -> dict[str, Any]:
    """Build the content of lineage.json, which is the same for the same recipe, data and commit.

    Args:
        facts: name, license, teacher and sources.
        recipe: the sections that determine the weights.
        lock: DVC's lock file.
        stages: the stages that the weights went through.
    """
    sha, dirty = git_state()
    return {
        **facts,
        "recipe_sha256": _sha256(recipe),
        "git_sha": sha,
        "git_dirty": dirty,
        "dvc_lock_sha256": lock_digest(lock, stages),
    }


def lock_digest(lock: Path, stages: Sequence[str]) -> str | None:
    """SHA-256 of the stages' entries in dvc.lock, without outputs that name a run or a time; None without a lock."""
    if not lock.is_file():
        return None
    entries = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"]
    content = {
        name: entry | {"outs": [out for out in entry["outs"] if Path(out["path"]).parts[1] not in RECORDS]}
        for name, entry in entries.items()
        if name.partition("@")[0] in stages
    }
    return _sha256(content)


def run_ids(stages: Sequence[str]) -> dict[str, str]:
    """MLflow run of each of the stages, from data/lineage; records of other stages may be of an earlier build."""
    return {one["stage"]: one["run_id"] for one in read_lineages() if one["stage"].partition("@")[0] in stages}


def lineage_faults(lineage: Mapping[str, Any]) -> list[str]:
    """List the missing parts of a lineage.json; empty when it is complete."""
    if missing := [name for name in FIELDS if name not in lineage]:
        return [f"lineage.json has no {', '.join(missing)}"]
    faults = [f"lineage.json: {name} is empty" for name in FIELDS[:5] if not lineage[name]]
    parts = [lineage["teacher"], *lineage["sources"]]
    unlicensed = [part.get("name") or part.get("path") for part in parts if not part.get("license")]
    return faults + [f"lineage.json: {name} has no licence" for name in unlicensed]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
