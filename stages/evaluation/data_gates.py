"""What curation, a release's lineage and its benchmarks say about its text, as figures for gates."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.metrics.gates import Figure


def data_figures(
    curated: Path, validated: Path, lineage: Mapping[str, Any], allowed_licenses: Sequence[str] | None
) -> dict[str, Figure]:
    """`validation_failures`: expectations not met; `evaluation_overlap`: the largest share of a source's test rows that
    train and dev repeat (they were taken out of those); `licenses_not_allowed`: sources under another licence.

    Args:
        lineage: of the release, with its `sources`.
        allowed_licenses: None for any that is stated.
    """
    validation = json.loads((validated / "validation.json").read_text(encoding="utf-8"))
    overlaps = json.loads((curated / "metrics.json").read_text(encoding="utf-8"))["evaluation_overlap"]
    unmet = [
        f"{suite['source']}: {one['expectation']}"
        for suite in validation["suites"]
        for one in suite["expectations"]
        if not one["success"]
    ]
    refused = [one["name"] for one in lineage["sources"] if not _allowed(one.get("license"), allowed_licenses)]
    most = max(overlaps, key=overlaps.get, default="")
    return {
        # Curation may refuse its rows for other reasons too, such as how many of them it had to reject.
        "validation_failures": Figure(float(max(len(unmet), not validation["success"])), note=", ".join(unmet)),
        "evaluation_overlap": Figure(float(overlaps.get(most, 0.0)), note=most),
        "licenses_not_allowed": Figure(float(len(refused)), note=", ".join(refused)),
    }


def mteb_figures(overlaps: Mapping[str, float]) -> dict[str, Figure]:
    """`mteb_overlap`: the largest share of a named task's texts that stand in train or dev, and were left there.

    Args:
        overlaps: shares by task; empty where the recipe names none.
    """
    if not overlaps:
        return {"mteb_overlap": Figure(None, note="there is no task of MTEB whose texts were looked for")}
    most = max(overlaps, key=lambda task: overlaps[task])
    return {"mteb_overlap": Figure(overlaps[most], note=most)}


def _allowed(license_name: str | None, allowed: Sequence[str] | None) -> bool:
    return bool(license_name) and (allowed is None or license_name in allowed)
