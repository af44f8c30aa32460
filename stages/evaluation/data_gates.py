"""Figures for gates about the data: from curation, the release's lineage and the benchmarks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.evaluation.gates import Figure


def data_figures(
    curated: Path, validated: Path, lineage: Mapping[str, Any], allowed_licenses: Sequence[str] | None
) -> dict[str, Figure]:
    """Read the figures about the data.

    Args:
        lineage: content of the release's lineage.json.
        allowed_licenses: None for any that is stated.

    Returns:
        `validation_failures`: number of expectations not met; `evaluation_overlap`: largest share of a source's test
        rows whose copies were removed from train and dev; `licenses_not_allowed`: number of sources.
    """
    validation = json.loads((validated / "validation.json").read_text(encoding="utf-8"))
    overlaps = json.loads((curated / "metrics.json").read_text(encoding="utf-8"))["evaluation_overlap"]
    unmet = [
        f"{suite['source']}: {expectation['expectation']}"
        for suite in validation["suites"]
        for expectation in suite["expectations"]
        if not expectation["success"]
    ]
    refused = [source["name"] for source in lineage["sources"] if not _allowed(source.get("license"), allowed_licenses)]
    largest = max(overlaps, key=overlaps.get, default="")
    return {
        # Curation may fail for other reasons too, such as the share of rows that it rejected.
        "validation_failures": Figure(float(max(len(unmet), not validation["success"])), note=", ".join(unmet)),
        "evaluation_overlap": Figure(float(overlaps.get(largest, 0.0)), note=largest),
        "licenses_not_allowed": Figure(float(len(refused)), note=", ".join(refused)),
    }


def _allowed(license_name: str | None, allowed: Sequence[str] | None) -> bool:
    return bool(license_name) and (allowed is None or license_name in allowed)


def mteb_figures(overlaps: Mapping[str, float]) -> dict[str, Figure]:
    """`mteb_overlap`: the largest share of a named task's texts that are in train or dev, where they stay.

    Args:
        overlaps: shares by task; empty where the recipe names no task.
    """
    if not overlaps:
        return {"mteb_overlap": Figure(None, note="there is no task of MTEB whose texts were looked for")}
    largest = max(overlaps, key=lambda task: overlaps[task])
    return {"mteb_overlap": Figure(overlaps[largest], note=largest)}
