"""Evaluate: every contender on every task, on entities that nothing was trained on; figures, plots and the report.

Writes data/evaluated: metrics.json (gates read its `summary` and `intervals`), truncation.csv, report.html,
report.json, to which promote adds its verdicts, and evidence/, every row's outcome, to compare later releases with.
"""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.fields import TASKS
from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

    from stages.evaluation.compared_models import Contenders
    from stages.evaluation.embedding_cache import KeptVectors
    from stages.evaluation.long_documents import Scores as LongScores
    from stages.evaluation.tasks import Score
    from stages.metrics.row_outcomes import Sample

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
DISTILLED = Path("data/distilled")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
QUANTIZED = Path("data/quantized")
OUTPUT = Path("data/evaluated")
# Where mteb keeps results, and what embedded texts gave: beside checkpoints, so that they outlive a build.
MTEB = Path(".stillhouse/mteb")
KEPT = Path(".stillhouse/evaluated")
CURVES = {f"adapt@{task}": ADAPTED / task / "curve.csv" for task in TASKS}
INPUTS = (CURATED, EMBEDDED, DISTILLED, EXTENDED, QUANTIZED, *CURVES.values())
Scores = dict[str, dict[str, dict[str, "Score"]]]  # task -> contender -> source -> score


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.tracking.runs import stage_run

    section = params.model_dump(include={"name", "seed", "engine", "evaluate"})
    with stage_run(stage="evaluate", params=section, inputs=INPUTS) as run:
        metrics = evaluate(params, OUTPUT)
        run.log_metrics(metrics["summary"])
        for name in ("metrics.json", "truncation.csv", "report.html"):
            run.log_artifact(OUTPUT / name)
    for name, figure in metrics["summary"].items():
        print(f"{name:34} {figure:.4f}")
    print(f"report: {OUTPUT / 'report.html'}")


def evaluate(params: Recipe, output: Path) -> dict[str, Any]:
    """Score, compare, compress, summarise and report; returns what metrics.json holds."""
    import torch

    from stages.evaluation import comparison, summary
    from stages.evaluation.compared_models import Contenders
    from stages.evaluation.embedding_cache import KeptVectors
    from stages.evaluation.evidence import Evidence, digests_of_tests, units_of_tests
    from stages.evaluation.long_documents import figures as long_figures
    from stages.evaluation.long_documents import summary as long_summary
    from stages.evaluation.tasks import retrieval_vectors
    from stages.teachers.teacher_vectors import TeacherVectors

    torch.set_num_threads(params.engine.threads)
    release = QUANTIZED / params.name
    teacher = TeacherVectors(EMBEDDED, params.embed)
    kept = KeptVectors(KEPT)
    contenders = Contenders(DISTILLED, release, teacher, params.engine.precision, kept)
    scores = _score_all(params, contenders)
    resampling = (params.seed, params.evaluate.num_resamples)
    samples = {task: comparison.samples(by_contender) for task, by_contender in scores.items()}
    units = units_of_tests(CURATED, {task: list(by_contender["base"]) for task, by_contender in samples.items()})
    draws = {task: comparison.draws(by_contender, *resampling, units[task]) for task, by_contender in samples.items()}
    metrics: dict[str, Any] = {task: comparison.figures(by_contender) for task, by_contender in scores.items()}
    metrics["comparisons"] = {
        task: comparison.comparisons(of_contender, summary.adapter_of(task)) for task, of_contender in draws.items()
    }
    vectors = retrieval_vectors(contenders, CURATED, params.evaluate.sources.retrieval)
    dims = params.evaluate.truncate_dims
    compressed = comparison.draws(_compression(params, release, vectors), *resampling, units["retrieval"])
    metrics |= summary.compressed(compressed, dims)
    metrics["weights_int8"] = json.loads((QUANTIZED / "weights.json").read_text(encoding="utf-8"))
    metrics |= _mteb(params, contenders, release)
    long = _long(params, release, kept)
    metrics["long"] = long_figures(long)
    flat = summary.of_tasks(draws) | summary.of_size(metrics["compression_kept"], metrics["weights_int8"], dims)
    flat |= long_summary(long, _release_theta(release), *resampling) if long else {}
    metrics |= summary.split(flat)
    _write(params, contenders, metrics, output)
    tests = digests_of_tests(CURATED, {task: list(by_source) for task, by_source in units.items()}, params.seed)
    Evidence(samples, vectors, tests, units).save(output / "evidence")
    kept.forget_unused()
    return metrics


def _score_all(params: Recipe, contenders: "Contenders") -> Scores:
    """Teacher, static, base, the base trained on and the task's adapter on every task; BM25 where there are queries."""
    from stages.evaluation import tasks
    from stages.evaluation.summary import adapter_of

    scores: Scores = {}
    for task, sources in params.evaluate.sources.model_dump(by_alias=True).items():
        if not sources:
            continue
        scores[task] = {
            name: {one: tasks.score(task, contenders, name, CURATED, one, params.seed) for one in sources}
            for name in ("teacher", "static", "base", "continued", adapter_of(task))
        }
        if task in ("retrieval", "unseen"):
            k1, b = params.evaluate.bm25.k1, params.evaluate.bm25.b
            scores[task]["bm25"] = {one: tasks.lexical_retrieval(CURATED, one, k1, b) for one in sources}
    return scores


def _mteb(params: Recipe, contenders: "Contenders", release: Path) -> dict[str, Any]:
    """What mteb says of the test rows, and of the tasks that the recipe names, as `mteb`; and as `mteb_overlap`
    the share of a named task's texts in train or dev. The teacher has no vectors of bitext, nor of those tasks.
    """
    from stages.evaluation.benchmark import benchmark, scored_by
    from stages.evaluation.contamination import Contamination, trained_texts
    from stages.evaluation.mteb_models import ROUTED, MtebModel
    from stages.evaluation.mteb_named import named_scores, named_tasks
    from stages.evaluation.mteb_tasks import bitext_tasks, local_tasks
    from stages.tracking.runs import digest

    base, adapters, teacher = (digest(folder)[:12] for folder in (release / "base", release / "adapters", EMBEDDED))
    here = f"{params.engine.precision}-{scored_by()}"
    students = {
        "base": MtebModel(contenders, "base", f"{base}-{here}"),
        ROUTED: MtebModel(contenders, ROUTED, f"{base}-{adapters}-{here}"),
    }
    everyone = {"teacher": MtebModel(contenders, "teacher", f"{teacher}-{here}"), **students}
    sources = params.evaluate.sources
    local = local_tasks(CURATED, sources.model_dump(by_alias=True), params.evaluate.bm25.k1, params.evaluate.bm25.b)
    bitext = bitext_tasks(CURATED, [*sources.retrieval, *sources.unseen])
    table = benchmark(everyone, local, MTEB) | benchmark(students, bitext, MTEB)
    named = named_tasks(params.evaluate.mteb.tasks, params.evaluate.mteb.folder)
    contamination = Contamination(params.curate.evaluation_overlap.jaccard)
    table |= named_scores(students, named, MTEB, contamination)
    return {"mteb": table, "mteb_overlap": contamination.shares(trained_texts(CURATED))}


def _long(params: Recipe, release: Path, kept: "KeptVectors") -> "LongScores":
    """Long documents by task, model, RoPE theta and length; empty where the recipe names none.

    What is released is read at every theta of the recipe; what it was before, at its own and the release's alone.
    """
    from stages.evaluation.long_documents import long_scores, long_tasks

    settings = params.evaluate.long
    if settings.haystacks is None and settings.articles is None:
        return {}
    sources, theta = (settings.haystacks, settings.articles, settings.num_documents), _release_theta(release)
    return long_scores(
        {"before": DISTILLED / "student", "after": EXTENDED / "student"},
        lambda encoder, length: long_tasks(encoder, CURATED, *sources, length),
        lengths=settings.lengths,
        thetas={"before": [theta], "after": [*settings.rope_thetas, theta]},
        precision=params.engine.precision,
        kept=kept,
    )


def _release_theta(release: Path) -> float:
    """The RoPE theta that the release is read with."""
    settings = json.loads((release / "base/encoder.json").read_text(encoding="utf-8"))
    assert settings["rope_theta"] is not None, "checked with the recipe"
    return float(settings["rope_theta"])


def _compression(
    params: Recipe, release: Path, vectors: dict[str, dict[str, "np.ndarray"]]
) -> dict[str, dict[str, "Sample"]]:
    """nDCG@10 of every query by `precision/dimension` and source."""
    from stages.evaluation.compression import compression

    limits = json.loads((release / "calibration.json").read_text(encoding="utf-8"))["int8_limit"]["retrieval"]
    pairs = {source: (by_side["query"], by_side["document"]) for source, by_side in vectors.items()}
    scored = compression(pairs, params.evaluate.truncate_dims, limits)
    return {f"{precision}/{dim}": by_source for (precision, dim), by_source in scored.items()}


def _write(params: Recipe, contenders: "Contenders", metrics: dict[str, Any], output: Path) -> None:
    from stages.reporting.report import render_report
    from stages.training.curves import read_curve, write_curve

    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    kept = metrics["compression"]
    rows = [
        {"dimensions": dim, **{name: kept[name][str(dim)] for name in kept}} for dim in params.evaluate.truncate_dims
    ]
    write_curve(output / "truncation.csv", rows)
    curves = {"distill": read_curve(DISTILLED / "curve.csv")}
    if extended := read_curve(EXTENDED / "curve.csv"):  # empty where the recipe leaves the phase out
        curves["extend"] = extended
    curves |= {name: read_curve(path) for name, path in CURVES.items()}
    contents = {"metrics": metrics, "curves": curves, "about": _about(params, contenders)}
    (output / "report.json").write_text(json.dumps(contents) + "\n", encoding="utf-8")
    (output / "report.html").write_text(render_report(metrics, curves, contents["about"]), encoding="utf-8")


def _about(params: Recipe, contenders: "Contenders") -> dict[str, Any]:
    from stages.evaluation.queries import queries_to_read
    from stages.tracking.runs import git_state

    sources = params.evaluate.sources
    lineage = json.loads((QUANTIZED / params.name / "lineage.json").read_text(encoding="utf-8"))
    silent = len(set(params.embed.prompts.values())) == 1
    notes = (
        ["The teacher takes no instructions, so the clustering adapter distils the same vectors as stage 1."]
        if silent
        else []
    )
    return {
        "name": params.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_sha": git_state()[0] or "",
        "recipe": params.model_dump(mode="json", by_alias=True),
        "teacher": _teacher(params),
        "student": _student(contenders, QUANTIZED / params.name),
        "sources": [{**one, **one["rows"]} for one in lineage["sources"]],
        "notes": notes,
        "queries": queries_to_read(contenders, CURATED, [*sources.retrieval, *sources.unseen]),
    }


def _teacher(params: Recipe) -> dict[str, Any]:
    """Name and dimensions; parameters where it is a backbone alone."""
    from stages.modeling.encoder import load_backbone
    from stages.teachers.vector_store import VectorStore

    teacher, parameters = params.embed.teacher, None
    if teacher.kind == "transformer":
        parameters = sum(parameter.numel() for parameter in load_backbone(teacher.path).parameters())
    return {"name": teacher.name, "dimensions": VectorStore(EMBEDDED).dimensions, "parameters": parameters}


def _student(contenders: "Contenders", release: Path) -> dict[str, Any]:
    from safetensors import safe_open

    base = contenders.encoder("base")
    with safe_open(release / "adapters/retrieval/adapter_model.safetensors", "np") as adapter:
        shapes = [adapter.get_slice(name).get_shape() for name in adapter.keys()]  # noqa: SIM118 (no mapping)
    return {
        "parameters": sum(parameter.numel() for parameter in base.parameters()),
        "adapter_parameters": sum(map(math.prod, shapes)),
        "dimensions": base.dimensions,
        "layers": base.backbone.config.num_hidden_layers,
        "architecture": base.backbone.config.model_type,
        "pooling": base.settings.pooling,
    }


if __name__ == "__main__":
    main()
