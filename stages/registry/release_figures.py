"""The figures of a release that its gates judge, and its comparison with the champion."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from stages.corpus.tables import read_split
from stages.evaluation.champion_comparison import (
    champion_on_our_rows,
    compare_with_champion,
    not_comparable,
    score_adapters,
)
from stages.evaluation.compared_models import ReleasedModels
from stages.evaluation.evidence import Evidence, load_evidence
from stages.evaluation.gates import Figure
from stages.evaluation.queries import moved_queries
from stages.evaluation.undefined import NO_INTERVAL, reason
from stages.recipe.engine import Engine
from stages.recipe.paths import CURATED
from stages.recipe.redaction import redacted
from stages.registry import store
from stages.registry.registration import served_cosine

# Number of texts of each side for which the served model has to give the vectors that were evaluated.
SERVED_TEXTS = 16


def evaluated_figures(metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures of the evaluation's summary with their intervals, NaN where they are undefined."""
    return {
        name: _figure(name, value, metrics["intervals"].get(name, {})) for name, value in metrics["summary"].items()
    }


def _figure(name: str, value: float | None, interval: Mapping[str, float | None]) -> Figure:
    if value is None:
        return Figure(math.nan, note=f"undefined: {reason(name)}")
    known = {bound: math.nan if number is None else number for bound, number in interval.items()}
    return Figure(value, **known, note=NO_INTERVAL if None in interval.values() else "")


def format_figures(release: Path) -> dict[str, Figure]:
    """`formats_left_out`: number of formats that do not agree with torch, and so are not in the release."""
    formats = json.loads((release / "parity.json").read_text(encoding="utf-8"))["formats"]
    left_out = sorted(name for name, report in formats.items() if not report["released"])
    return {"formats_left_out": Figure(len(left_out), note=", ".join(left_out))}


def served_figures(version: ModelVersion, evidence: Evidence) -> dict[str, Figure]:
    """`served_cosine_min`: least cosine between the registered model's vectors and those that were evaluated."""
    if not evidence.vectors:
        return {"served_cosine_min": Figure(None, note="retrieval was not evaluated")}
    source, vectors = next(iter(evidence.vectors.items()))
    rows = read_split(CURATED, "pairs", "test", [source])[:SERVED_TEXTS]
    texts = {side: rows[side].to_pylist() for side in vectors}
    return {"served_cosine_min": Figure(served_cosine(version, texts, vectors))}


def champion_figures(
    evidence: Evidence, champion: ModelVersion | None, engine: Engine, seed: int, num_resamples: int
) -> dict[str, Figure]:
    """Compare the release with the champion on the same rows; NaN and the reason where that cannot be done."""
    tasks = list(evidence.tests)
    if champion is None:
        return not_comparable(tasks, "there is no champion", None)

    def rescore(sources: Mapping[str, Sequence[str]]) -> Evidence:
        """Score the champion's models, which are loaded only where its evaluation saw other rows."""
        torch.set_num_threads(engine.threads)
        models = ReleasedModels(store.served_models(store.registry(), champion), engine.precision)
        return score_adapters(models, CURATED, sources, seed)

    try:
        theirs = champion_on_our_rows(evidence, champion_evidence(champion), rescore)
        return compare_with_champion(evidence, theirs, seed, num_resamples)
    except Exception as error:  # an older release may be broken in any way: its owner reads the reason
        note = f"not comparable with champion {champion.version} ({type(error).__name__}: {error})"
        return not_comparable(tasks, redacted(note), float("nan"))


def champion_queries(evidence: Evidence, champion: ModelVersion | None) -> dict[str, dict[str, Any]]:
    """Find the queries that moved most since the champion, by source on which both were evaluated on the same rows."""
    try:
        theirs = champion_evidence(champion) if champion else None
    except Exception:  # of an older release: `champion_figures` gives the reason
        theirs = None
    if theirs is None:
        return {}
    known = theirs.tests.get("retrieval", {})
    same = [source for source, rows in evidence.tests.get("retrieval", {}).items() if known.get(source) == rows]
    return moved_queries(CURATED, {source: evidence.vectors[source] for source in same}, theirs.vectors)


def champion_evidence(champion: ModelVersion) -> Evidence | None:
    """Read the evidence of the champion's evaluation; None where it left none, so that its models are scored again."""
    try:
        folder = store.evidence_of(champion)
    except (MlflowException, OSError):
        return None
    return None if folder is None else load_evidence(folder)
