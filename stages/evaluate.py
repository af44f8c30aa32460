"""Evaluate: every compared model on every task, on entities that nothing was trained on; figures, plots and the report.

Writes data/evaluated: metrics.json (the headline, for `dvc metrics`), figures.json (every figure; gates read its
`summary` and `intervals`), truncation.csv (for `dvc plots`), report.html, report.json (what the report shows, to which
promote adds its verdicts), and evidence/ (the outcome of every row, to compare later releases with).
"""

if __name__ == "__main__":  # The entry checks the recipe before torch is imported.
    from stages.entry import run_stage

    run_stage("evaluate")

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from stages.evaluation import comparison, long_documents, summary
from stages.evaluation.compared_models import BuildModels
from stages.evaluation.compression import compression, compression_figures
from stages.evaluation.contamination import Contamination, trained_texts
from stages.evaluation.embedding_cache import EmbeddingCache
from stages.evaluation.evidence import Evidence, digests_of_tests, units_of_tests
from stages.evaluation.measured_pairs import figures_by_origin
from stages.evaluation.model_facts import student_facts, teacher_facts, weights_facts
from stages.evaluation.mteb_local_tasks import bitext_tasks, local_tasks
from stages.evaluation.mteb_named_tasks import named_scores, named_tasks
from stages.evaluation.mteb_scores import ROUTED, MtebModel, mteb_scores, scoring_digest
from stages.evaluation.queries import queries_to_read
from stages.evaluation.tasks import Score, adapter_of, lexical_retrieval, retrieval_vectors, score, with_test_rows
from stages.evaluation.undefined import undefined_figures, with_nulls
from stages.recipe.fields import TASKS
from stages.recipe.paths import (
    ADAPTED,
    CURATED,
    DISTILLED,
    EMBEDDED,
    EVALUATED,
    EVALUATED_VECTORS,
    EXTENDED,
    FIGURES,
    INCONSISTENT_PAIRS,
    MTEB_RESULTS,
    QUANTIZED,
)
from stages.recipe.recipe import Recipe
from stages.reporting.report import render_report
from stages.teachers.teacher_vectors import TeacherVectors
from stages.teachers.vector_store import VectorStore
from stages.tracking.digests import digest
from stages.tracking.git import git_state
from stages.tracking.runs import stage_run
from stages.training.curves import read_curve, write_curve

ADAPTER_CURVES = {f"adapt@{task}": ADAPTED / task / "curve.csv" for task in TASKS}
CURVES = {"distill": DISTILLED / "curve.csv", "extend": EXTENDED / "curve.csv", **ADAPTER_CURVES}
INPUTS = (CURATED, EMBEDDED, INCONSISTENT_PAIRS, DISTILLED, EXTENDED, QUANTIZED, *ADAPTER_CURVES.values())


def main(recipe: Recipe) -> None:
    """Evaluate, write everything, and record the headline in MLflow."""
    recorded = recipe.model_dump(include={"name", "seed", "engine", "evaluate"})
    sources, absent = with_test_rows(recipe.evaluate.sources, CURATED)
    measured = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"sources": sources})})
    with stage_run(stage="evaluate", params=recorded, inputs=INPUTS) as run:
        torch.set_num_threads(recipe.engine.threads)
        cache = EmbeddingCache(EVALUATED_VECTORS)
        teacher = TeacherVectors(EMBEDDED, recipe.embed)
        models = BuildModels(DISTILLED, QUANTIZED / recipe.name, teacher, recipe.engine.precision, cache)
        figures, evidence = evaluate(measured, models, cache)
        headline = summary.headline(figures)
        write_outputs(recipe, models, figures, headline)
        evidence.save(EVALUATED / "evidence")
        cache.remove_unused()
        run.log_metrics(headline)
        for path in (EVALUATED / "report.html", FIGURES, EVALUATED / "metrics.json", EVALUATED / "truncation.csv"):
            run.log_artifact(path)
    if absent:
        print(f"nothing was measured on {', '.join(absent)}: no test rows were held out")
    for sentence in undefined_figures(figures):
        print(sentence)
    for name, figure in headline.items():
        print(f"{name:20} {figure:8.4f}")
    print(f"report: {EVALUATED / 'report.html'}")


def evaluate(recipe: Recipe, models: BuildModels, cache: EmbeddingCache) -> tuple[dict[str, Any], Evidence]:
    """Score, compare, compress and summarise: the content of figures.json, and the evidence behind it."""
    release, settings = QUANTIZED / recipe.name, recipe.evaluate
    resampling = (recipe.seed, settings.num_resamples)

    # The tasks: figures of each model, and their differences on the same resamples of the test sets.
    scores = score_tasks(recipe, models)
    outcomes = {task: comparison.outcomes(by_model) for task, by_model in scores.items()}
    sources = {task: list(by_model["base"]) for task, by_model in scores.items()}
    units = units_of_tests(CURATED, sources)
    draws = {task: comparison.draws(by_model, *resampling, units[task]) for task, by_model in outcomes.items()}
    figures: dict[str, Any] = {task: comparison.figures(by_model) for task, by_model in scores.items()}
    figures["origins"] = figures_by_origin(outcomes.get("retrieval", {}), CURATED)
    figures["comparisons"] = {task: comparison.comparisons(draws[task], adapter_of(task)) for task in draws}

    # Smaller vectors and weights.
    vectors = retrieval_vectors(models, CURATED, settings.sources.retrieval)
    if vectors:
        limits = read_json(release / "calibration.json")["int8_limit"]["retrieval"]
        shortened = compression(vectors, settings.truncate_dims, limits)
        compressed = comparison.draws(shortened, *resampling, units["retrieval"])
        figures |= compression_figures(compressed, settings.truncate_dims)
    figures["weights_int8"] = weights_facts(read_json(release / "parity.json")["formats"])

    figures |= mteb_figures(recipe, models, release)

    # Long documents: the release at every RoPE theta; the model before `extend` only at its own and the release's.
    theta = read_json(release / "base/encoder.json")["rope_theta"]  # not null where the recipe has long documents
    long = long_documents.long_scores(
        {"before": DISTILLED / "student", "after": EXTENDED / "student"},
        CURATED,
        settings.long,
        thetas={"before": [theta], "after": [*settings.long.rope_thetas, theta]},
        precision=recipe.engine.precision,
        cache=cache,
    )
    figures["long"] = long_documents.figures(long)

    flat = summary.task_summary(draws)
    flat |= summary.size_summary(figures.get("compression_kept"), figures["weights_int8"], settings.truncate_dims)
    flat |= long_documents.summary(long, theta, *resampling)
    figures |= summary.split(flat)
    return with_nulls(figures), Evidence(outcomes, vectors, digests_of_tests(CURATED, sources, recipe.seed), units)


def score_tasks(recipe: Recipe, models: BuildModels) -> dict[str, dict[str, dict[str, Score]]]:
    """Score every model on every task, by task, model and source; BM25 where there are queries."""
    scores: dict[str, dict[str, dict[str, Score]]] = {}
    for task, sources in recipe.evaluate.sources.model_dump(by_alias=True).items():
        if not sources:
            continue
        scores[task] = {
            name: {source: score(task, models, name, CURATED, source, recipe.seed) for source in sources}
            for name in ("teacher", "static", "base", "continued", adapter_of(task))
        }
        if task in ("retrieval", "unseen"):
            scores[task]["bm25"] = {
                source: lexical_retrieval(CURATED, source, recipe.evaluate.bm25) for source in sources
            }
    return scores


def mteb_figures(recipe: Recipe, models: BuildModels, release: Path) -> dict[str, Any]:
    """Compute `mteb`, scores of the test rows and of the tasks that the recipe names, and `mteb_overlap`, the share of
    a named task's texts that are in train or dev. The release as a whole is scored on kinds of tasks that it has an
    adapter for.

    The teacher is not scored on bitext or named tasks, whose texts it has not embedded.
    """
    settings, sources = recipe.evaluate, recipe.evaluate.sources
    base, adapters, teacher = (digest(folder)[:12] for folder in (release / "base", release / "adapters", EMBEDDED))
    scoring = f"{recipe.engine.precision}-{scoring_digest()}"
    students = {
        "base": MtebModel(models, "base", f"{base}-{scoring}"),
        ROUTED: MtebModel(models, ROUTED, f"{base}-{adapters}-{scoring}"),
    }
    all_models = {"teacher": MtebModel(models, "teacher", f"{teacher}-{scoring}"), **students}
    local = local_tasks(CURATED, sources.model_dump(by_alias=True), settings.bm25)
    bitext = bitext_tasks(CURATED, [*sources.retrieval, *sources.unseen])
    table = mteb_scores(all_models, local, MTEB_RESULTS) | mteb_scores(students, bitext, MTEB_RESULTS)
    contamination = Contamination(recipe.curate.evaluation_overlap.jaccard)
    named = named_tasks(settings.mteb.tasks, settings.mteb.folder)
    table |= named_scores(students, named, MTEB_RESULTS, contamination)
    return {"mteb": table, "mteb_overlap": contamination.shares(trained_texts(CURATED))}


def write_outputs(recipe: Recipe, models: BuildModels, figures: dict[str, Any], headline: dict[str, float]) -> None:
    """Write the figures, the plot's data and the report."""
    EVALUATED.mkdir(parents=True, exist_ok=True)
    for path, content in ((FIGURES, figures), (EVALUATED / "metrics.json", headline)):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    precisions = figures.get("compression", {})
    rows = [
        {"dimensions": dim, **{precision: precisions[precision][str(dim)] for precision in precisions}}
        for dim in recipe.evaluate.truncate_dims
        if precisions
    ]
    write_curve(EVALUATED / "truncation.csv", rows, header=("dimensions", "float32", "int8", "binary"))
    curves = {phase: read_curve(path) for phase, path in CURVES.items()}
    curves = {phase: curve for phase, curve in curves.items() if curve}  # without phases that the recipe leaves out
    about = describe(recipe, models)
    about["notes"] += undefined_figures(figures)
    contents = with_nulls({"metrics": figures, "curves": curves, "about": about})
    (EVALUATED / "report.json").write_text(json.dumps(contents) + "\n", encoding="utf-8")
    (EVALUATED / "report.html").write_text(render_report(figures, curves, about), encoding="utf-8")


def describe(recipe: Recipe, models: BuildModels) -> dict[str, Any]:
    """Describe recipe, teacher, student, sources and some queries, for the report.

    The queries are the worst ones, and those that changed most against the base.
    """
    release, (sources, absent) = QUANTIZED / recipe.name, with_test_rows(recipe.evaluate.sources, CURATED)
    held_out_none = f"Nothing was measured on {', '.join(absent)}: no test rows were held out."
    same_vectors = len(set(recipe.embed.prompts.values())) == 1 and "clustering" in models.tasks
    note = "The teacher takes no instructions, so the clustering adapter distils the same vectors as stage 1."
    return {
        "name": recipe.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_sha": git_state()[0] or "",
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "teacher": teacher_facts(recipe.embed, VectorStore(EMBEDDED).dimensions),
        "student": student_facts(models.encoder("base"), release),
        "sources": [{**source, **source["rows"]} for source in read_json(release / "lineage.json")["sources"]],
        "notes": [*([note] if same_vectors else []), *([held_out_none] if absent else [])],
        "queries": queries_to_read(models, CURATED, [*sources.retrieval, *sources.unseen]),
    }


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
