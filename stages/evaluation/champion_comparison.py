"""A release compared with the champion: on the same test rows, and with its queries on the champion's documents.

Shapes: Q queries, C documents, D embedding dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.evaluation.compared_models import ComparedModels
from stages.evaluation.comparison import draws, overall
from stages.evaluation.evidence import Evidence
from stages.evaluation.gates import Figure, Verdict
from stages.evaluation.tasks import adapter_of, retrieval_vectors, score
from stages.metrics import bootstrap
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean, RowOutcomes

INDEX = "index_compatibility"
# Names of sources by task -> the champion's evidence on them.
Rescore = Callable[[Mapping[str, Sequence[str]]], Evidence]


def figure_names(tasks: Sequence[str]) -> list[str]:
    """Name the figures of `compare_with_champion`."""
    return [*(_name(task) for task in tasks), *([INDEX] if "retrieval" in tasks else [])]


def _name(task: str) -> str:
    return f"{task.replace('-', '_')}_over_champion"


def not_comparable(tasks: Sequence[str], note: str, value: float | None) -> dict[str, Figure]:
    """Give the figures where there is no champion (value None), or it cannot be compared with (NaN)."""
    return {name: Figure(value, note=note) for name in figure_names(tasks)}


def champion_on_our_rows(ours: Evidence, champion: Evidence | None, rescore: Rescore) -> Evidence:
    """Find the champion's outcomes on our test rows: stored ones where its rows were the same, else scored again.

    A task that the champion has no adapter for is left out.
    """
    stored = champion or Evidence({}, {}, {})
    changed = {
        task: [source for source, digest in of_task.items() if stored.tests.get(task, {}).get(source) != digest]
        for task, of_task in ours.tests.items()
    }
    changed = {task: sources for task, sources in changed.items() if sources}
    again = rescore(changed) if changed else Evidence({}, {}, {})

    def outcomes(task: str) -> dict[str, RowOutcomes]:
        known, scored = (evidence.outcomes.get(task, {}).get(adapter_of(task), {}) for evidence in (stored, again))
        return {
            source: scored[source] if source in changed.get(task, []) else known[source] for source in ours.tests[task]
        }

    vectors = {**stored.vectors, **again.vectors}
    tests = {task: rows for task, rows in ours.tests.items() if task not in changed or task in again.outcomes}
    return Evidence({task: {adapter_of(task): outcomes(task)} for task in tests}, vectors, tests)


def score_adapters(models: ComparedModels, curated: Path, sources: Mapping[str, Sequence[str]], seed: int) -> Evidence:
    """Score each adapter that there is on the sources named for its task, by task: a `Rescore` of the champion's."""
    sources = {task: names for task, names in sources.items() if adapter_of(task) in models.tasks}
    outcomes = {
        task: {
            adapter_of(task): {
                source: score(task, models, adapter_of(task), curated, source, seed).outcomes for source in names
            }
        }
        for task, names in sources.items()
    }
    return Evidence(outcomes, retrieval_vectors(models, curated, sources.get("retrieval", ())), {})


def compare_with_champion(ours: Evidence, champion: Evidence, seed: int, num_resamples: int) -> dict[str, Figure]:
    """Compute each adapter's score minus the champion's, and the index compatibility."""
    figures = {}
    for task, by_model in ours.outcomes.items():
        adapter = adapter_of(task)
        if task not in champion.outcomes:
            figures[_name(task)] = Figure(None, note=f"the champion has no adapter for {adapter}")
            continue
        both = {"ours": by_model[adapter], "champion": champion.outcomes[task][adapter]}
        drawn = draws(both, seed, num_resamples, ours.units.get(task))
        found = bootstrap.difference(overall(drawn["ours"]), overall(drawn["champion"]))
        figures[_name(task)] = Figure(found.figure, found.low, found.high, found.p)
    if "retrieval" in ours.outcomes:
        figures[INDEX] = _index_compatibility(ours, champion, seed, num_resamples)
    return figures


def _index_compatibility(ours: Evidence, champion: Evidence, seed: int, num_resamples: int) -> Figure:
    """nDCG@10 of our queries on the champion's documents, as a share of what its own queries reach there."""
    sources = list(ours.vectors)
    if "retrieval" not in champion.outcomes:
        return Figure(None, note="the champion has no adapter for retrieval")
    documents = {source: champion.vectors[source]["document"] for source in sources}
    dims = {ours.vectors[source]["query"].shape[1] for source in sources}
    dims |= {vectors.shape[1] for vectors in documents.values()}
    if len(dims) > 1:
        return Figure(0.0, note=f"dimensions differ, {' and '.join(map(str, sorted(dims)))}")
    outcomes = {
        name: {source: Mean(_ndcg(evidence.vectors[source]["query"], documents[source])) for source in sources}
        for name, evidence in (("ours", ours), ("champion", champion))
    }
    drawn = draws(outcomes, seed, num_resamples, ours.units.get("retrieval"))
    mixed, own = overall(drawn["ours"]), overall(drawn["champion"])
    found = bootstrap.ratio(mixed, own)
    note = f"nDCG@10 {100 * mixed.figure:.1f}, its own queries {100 * own.figure:.1f}"
    return Figure(found.figure, found.low, found.high, found.p, note)


def _ndcg(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    ranked, _ = rank(queries, documents, 10)
    return ndcg_at_10(ranked, [{row} for row in range(len(queries))])


def index_statement(verdicts: Sequence[Verdict]) -> str:
    """Say whether the documents have to be embedded again before this release replaces the champion."""
    index = next((verdict for verdict in verdicts if verdict.name == INDEX), None)
    if index is None:
        return "The recipe sets no limit for index_compatibility, so nothing is said about a re-index."
    if not index.applies:
        return "There is no champion, so there is no index to keep."
    if index.passed:
        return f"No re-index is due: new queries work on the champion's document vectors ({index.shown})."
    return f"A re-index is due: new queries do not work on the champion's document vectors ({index.shown})."
