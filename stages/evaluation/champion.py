"""A release beside the champion: on the same test rows, and as queries of the champion's index.

Shapes: Q queries, C documents, D embedding dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.evaluation.comparison import draws, overall
from stages.evaluation.evidence import Evidence
from stages.evaluation.summary import adapter_of
from stages.evaluation.tasks import Contenders, retrieval_vectors, score
from stages.metrics import bootstrap
from stages.metrics.gates import Figure, Verdict
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean, Sample

INDEX = "index_compatibility"
# Scores the champion's models on named sources by task.
ScoreAgain = Callable[[Mapping[str, Sequence[str]]], Evidence]


def figure_names(tasks: Sequence[str]) -> list[str]:
    """Names of what `beside` finds."""
    return [*(f"{task.replace('-', '_')}_over_champion" for task in tasks), INDEX]


def on_the_same_rows(ours: Evidence, champion: Evidence | None, score_again: ScoreAgain) -> Evidence:
    """The champion's outcomes on our test rows: as stored where its rows were the same, else scored again."""
    stored = champion or Evidence({}, {}, {})
    changed = {
        task: [source for source, digest in of_task.items() if stored.tests.get(task, {}).get(source) != digest]
        for task, of_task in ours.tests.items()
    }
    changed = {task: sources for task, sources in changed.items() if sources}
    again = score_again(changed) if changed else Evidence({}, {}, {})

    def samples(task: str) -> dict[str, Sample]:
        held = [one.samples.get(task, {}).get(adapter_of(task), {}) for one in (stored, again)]
        return {source: held[source in changed.get(task, [])][source] for source in ours.tests[task]}

    vectors = {**stored.vectors, **again.vectors}
    return Evidence({task: {adapter_of(task): samples(task)} for task in ours.tests}, vectors, ours.tests)


def beside(ours: Evidence, champion: Evidence, seed: int, num_resamples: int) -> dict[str, Figure]:
    """Each adapter minus the champion's, and what our queries keep on the champion's document vectors."""
    figures = {}
    for task, by_contender in ours.samples.items():
        name = adapter_of(task)
        both = {"ours": by_contender[name], "champion": champion.samples[task][name]}
        of_both = draws(both, seed, num_resamples, ours.units.get(task))
        found = bootstrap.difference(overall(of_both["ours"]), overall(of_both["champion"]))
        figures[f"{task.replace('-', '_')}_over_champion"] = Figure(found.figure, found.low, found.high, found.p)
    units = ours.units.get("retrieval")
    return figures | {INDEX: _index_compatibility(ours.vectors, champion.vectors, units, seed, num_resamples)}


def _index_compatibility(
    ours: Mapping[str, Mapping[str, np.ndarray]],
    champion: Mapping[str, Mapping[str, np.ndarray]],
    units: Mapping[str, np.ndarray] | None,
    seed: int,
    num_resamples: int,
) -> Figure:
    """nDCG@10 of our queries on the champion's documents, as a share of what its own queries reach there."""
    dims = {side["query"].shape[1] for side in ours.values()} | {champion[one]["document"].shape[1] for one in ours}
    if len(dims) > 1:
        return Figure(0.0, note=f"dimensions differ, {' and '.join(map(str, sorted(dims)))}")
    queries = {"ours": ours, "champion": champion}
    samples = {
        name: {source: Mean(_ndcg(of_model[source]["query"], champion[source]["document"])) for source in ours}
        for name, of_model in queries.items()
    }
    of_both = draws(samples, seed, num_resamples, units)
    mixed, own = overall(of_both["ours"]), overall(of_both["champion"])
    found = bootstrap.ratio(mixed, own)
    note = f"nDCG@10 {100 * mixed.figure:.1f}, its own queries {100 * own.figure:.1f}"
    return Figure(found.figure, found.low, found.high, found.p, note)


def _ndcg(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    ranked, _ = rank(queries, documents, 10)
    return ndcg_at_10(ranked, [{row} for row in range(len(queries))])


def statement(verdicts: Sequence[Verdict]) -> str:
    """Whether whoever serves the champion has to embed the documents again before this release takes over."""
    index = next((one for one in verdicts if one.metric == INDEX), None)
    if index is None:
        return "The recipe sets no limit for index_compatibility, so nothing is said about a re-index."
    if not index.applies:
        return "There is no champion, so there is no index to keep."
    if index.passed:
        return f"No re-index is due: new queries work on the champion's document vectors ({index.shown})."
    return f"A re-index is due: new queries do not work on the champion's document vectors ({index.shown})."


def unavailable(tasks: Sequence[str], note: str, value: float | None) -> dict[str, Figure]:
    """The figures where there is no champion (value None), or one that cannot be compared with (not-a-number)."""
    return {name: Figure(value, note=note) for name in figure_names(tasks)}


def rescoring(contenders: Contenders, curated: Path, seed: int) -> ScoreAgain:
    """`ScoreAgain` of a champion's models."""

    def again(sources: Mapping[str, Sequence[str]]) -> Evidence:
        samples = {
            task: {
                adapter_of(task): {
                    one: score(task, contenders, adapter_of(task), curated, one, seed).sample for one in names
                }
            }
            for task, names in sources.items()
        }
        return Evidence(samples, retrieval_vectors(contenders, curated, sources.get("retrieval", ())), {})

    return again
