"""Reasons for refusing the curated rows, one line for each."""

from typing import Any

from stages.corpus.curation import Curated
from stages.recipe.curate import Curate, Source


def refusals(rules: Curate, curated: Curated) -> list[str]:
    """List the faults of all sources and of their test sets; empty where everything is accepted."""
    faults = [fault for source in rules.sources for fault in _source_faults(source, curated)]
    most = rules.evaluation_overlap.max_share
    return faults + [
        f"{test['source']}: {test['share']:.1%} of its {test['rows']} test rows stand in train or dev too "
        f"({test['exact']} exactly, {test['near']} nearly), evaluation_overlap.max_share is {most:.1%}; they were "
        "taken out of train and dev (see rejected.parquet); allow more, or split by an entity that keeps them together"
        for test in curated.overlaps
        if test["share"] > most
    ]


def _source_faults(source: Source, curated: Curated) -> list[str]:
    counts, faults = curated.counts[source.name], []
    share = counts["rejected"] / max(1, counts["read"])
    if share > source.max_rejected_share:
        most = sorted(curated.rejected[source.name].items(), key=lambda reason: -reason[1])[:3]
        faults.append(
            f"{source.name}: {share:.1%} of {counts['read']} rows rejected, max_rejected_share is "
            f"{source.max_rejected_share:.1%}; {', '.join(f'{reason} ({rows})' for reason, rows in most)}"
        )
    suite = next(suite for suite in curated.suites if suite["source"] == source.name)
    unmet = [outcome for outcome in suite["expectations"] if not outcome["success"]]
    return faults + [f"{source.name}: {_unmet(outcome, suite['rows'])}" for outcome in unmet]


def _unmet(outcome: dict[str, Any], rows: int) -> str:
    name = outcome["expectation"] + (f"({outcome['column']})" if outcome["column"] else "")
    if outcome["exception"]:
        return f"{name}: could not be checked, which says nothing about the data: {outcome['exception']}"
    if outcome["unexpected_count"]:
        return f"{name}: {outcome['unexpected_count']} of {rows} rows, such as {outcome['examples'][:3]}"
    limits = {name: limit for name, limit in outcome["kwargs"].items() if name in ("min_value", "max_value")}
    return f"{name}: observed {outcome['observed']}, expected {limits}"
