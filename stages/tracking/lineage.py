"""Lineage files: data/lineage/<stage>.json names the MLflow run that wrote a stage's outputs, and what it read."""

import json
from collections.abc import Mapping
from typing import Any

from stages.recipe.paths import LINEAGE


def write_lineage(stage: str, lineage: Mapping[str, Any]) -> None:
    """Write a stage's lineage under another name and rename it, so that no half-written file is ever read."""
    LINEAGE.mkdir(parents=True, exist_ok=True)
    partial = LINEAGE / f".{stage}.json.partial"
    partial.write_text(json.dumps(lineage, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(LINEAGE / f"{stage}.json")


def read_lineages() -> list[dict[str, Any]]:
    """Read the lineage of every stage that ran, by name of the stage; that of an absent task is empty."""
    lineages = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(LINEAGE.glob("*.json")))
    return [lineage for lineage in lineages if lineage]
