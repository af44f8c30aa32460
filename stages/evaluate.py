"""Evaluate: every contender on every task, on entities that nothing was trained on; figures, plots and the report.

Writes data/evaluated: metrics.json (gates read its `summary` and `intervals`), truncation.csv, report.html, report.json (what
promote adds its verdicts to) and evidence/, the outcome of every row, for comparison with later releases.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.params import TASKS, Params, load

if TYPE_CHECKING:
    import numpy as np

    from stages.evaluation.contenders import Contenders
    from stages.evaluation.evidence import Evidence
    from stages.evaluation.long import Scores as LongScores
    from stages.evaluation.tasks import Score
    from stages.metrics.bootstrap import Draws, Estimate
    from stages.metrics.samples import Sample

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
DISTILLED = Path("data/distilled")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
QUANTIZED = Path("data/quantized")
OUTPUT = Path("data/evaluated")
INPUTS = (CURATED, EMBEDDED, DISTILLED, EXTENDED, QUANTIZED)
# k-means depends on its start: the mean over these many starts is what counts.
CLUSTERING_SEEDS = 5

Scores = dict[str, dict[str, dict[str, "Score"]]]  # task -> contender -> source -> score
OfTask = dict[str, dict[str, "Draws"]]  # contender -> source -> its figure on every resample


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.tracking import stage_run

    section = params.model_dump(include={"name", "seed", "engine", "evaluate"})
    with stage_run(stage="evaluate", params=section, inputs=INPUTS) as run:
        metrics = evaluate(params, OUTPUT)
        run.log_metrics(metrics["summary"])
        for name in ("metrics.json", "truncation.csv", "report.html"):
            run.log_artifact(OUTPUT / name)
    for name, figure in metrics["summary"].items():
        print(f"{name:34} {figure:.4f}")
    print(f"report: {OUTPUT / 'report.html'}")


def evaluate(params: Params, output: Path) -> dict[str, Any]:
    """Score, compare, compress, summarise and report; returns what metrics.json holds."""
    import torch

    from stages.corpus.readings import TeacherVectors
    from stages.evaluation import comparison
    from stages.evaluation.contenders import Contenders
    from stages.evaluation.long import figures as long_figures

    torch.set_num_threads(params.engine.threads)
    release = QUANTIZED / params.name
    teacher = TeacherVectors(EMBEDDED, params.embed.prompts, params.embed.max_tokens, params.embed.long)
    contenders = Contenders(DISTILLED, release, teacher, params.engine.precision)
    scores = _score_all(params, contenders)
    resampling = (params.seed, params.evaluate.num_resamples)
    samples = {task: comparison.samples(by_contender) for task, by_contender in scores.items()}
    draws = {task: comparison.draws(by_contender, *resampling) for task, by_contender in samples.items()}
    metrics: dict[str, Any] = {task: comparison.figures(by_contender) for task, by_contender in scores.items()}
    metrics["comparisons"] = {
        task: comparison.comparisons(of_contender, adapter_of(task)) for task, of_contender in draws.items()
    }
    vectors = _retrieval_vectors(params, contenders)
    kept = comparison.draws(_compression(params, release, vectors), *resampling)
    metrics |= _compression_figures(kept, params.evaluate.truncate_dims)
    metrics["weights_int8"] = json.loads((QUANTIZED / "weights.json").read_text(encoding="utf-8"))
    long = _long(params, contenders)
    metrics["long"] = long_figures(long)
    summary = (
        _summary(params, metrics, draws)
        | _summary_of_size(params, metrics)
        | _summary_of_long(params, contenders, long)
    )
    metrics["summary"] = {name: getattr(one, "figure", one) for name, one in summary.items()}
    metrics["intervals"] = {
        name: {bound: value for bound, value in one.as_dict().items() if bound != "figure"}
        for name, one in summary.items()
        if not isinstance(one, float)
    }
    _write(params, contenders, metrics, output)
    _evidence(params, samples, vectors).save(output / "evidence")
    return metrics


def adapter_of(task: str) -> str:
    """The contender that a task is about: the adapter of its name; retrieval's also where nothing was trained on."""
    return "retrieval" if task == "unseen" else task


def _score_all(params: Params, contenders: "Contenders") -> Scores:
    from stages.evaluation import tasks

    sources, curated = params.evaluate.sources, CURATED
    seeds = range(params.seed, params.seed + CLUSTERING_SEEDS)
    students = ("teacher", "static", "base", "continued")
    scores: Scores = {
        task: {
            "teacher": {},
            "bm25": {
                one: tasks.lexical_retrieval(curated, one, params.evaluate.bm25.k1, params.evaluate.bm25.b)
                for one in names
            },
        }
        | {
            name: {one: tasks.retrieval(contenders, name, curated, one) for one in names}
            for name in (*students, "retrieval")
        }
        for task, names in (("retrieval", sources.retrieval), ("unseen", sources.unseen))
        if names
    }
    scores["text-matching"] = {
        name: {one: tasks.text_matching(contenders, name, curated, one) for one in sources.text_matching}
        for name in (*students, "text-matching")
    }
    scores["clustering"] = {
        name: {one: tasks.clustering(contenders, name, curated, one, seeds) for one in sources.clustering}
        for name in (*students, "clustering")
    }
    scores["classification"] = {
        name: {one: tasks.classification(contenders, name, curated, one) for one in sources.classification}
        for name in (*students, "classification")
    }
    return scores


def _long(params: Params, contenders: "Contenders") -> "LongScores":
    """Long documents by task, model, RoPE theta and length; empty where the recipe names none."""
    from stages.evaluation.long import long_scores, long_tasks

    settings = params.evaluate.long
    if settings.haystacks is None and settings.articles is None:
        return {}
    sources = (settings.haystacks, settings.articles, settings.num_documents)
    return long_scores(
        {"before": DISTILLED / "student", "after": EXTENDED / "student"},
        lambda encoder, length: long_tasks(encoder, CURATED, *sources, length),
        lengths=settings.lengths,
        thetas=(*settings.rope_thetas, _release_theta(contenders)),
        precision=params.engine.precision,
    )


def _release_theta(contenders: "Contenders") -> float:
    theta = contenders.encoder("base").settings.rope_theta
    assert theta is not None, "checked with the recipe"
    return theta


def _retrieval_vectors(params: Params, contenders: "Contenders") -> dict[str, dict[str, "np.ndarray"]]:
    """The retrieval adapter's vectors of test queries and documents, by source and side."""
    from stages.corpus.tables import read_split

    vectors = {}
    for source in params.evaluate.sources.retrieval:
        pairs = read_split(CURATED, "pairs", "test", [source])
        vectors[source] = {
            side: contenders.embed("retrieval", pairs[side].to_pylist(), side, source) for side in ("query", "document")
        }
    return vectors


def _compression(
    params: Params, release: Path, vectors: dict[str, dict[str, "np.ndarray"]]
) -> dict[str, dict[str, "Sample"]]:
    """nDCG@10 of every query by `precision/dimension` and source."""
    from stages.evaluation.compression import compression

    limits = json.loads((release / "calibration.json").read_text(encoding="utf-8"))["int8_limit"]["retrieval"]
    pairs = {source: (by_side["query"], by_side["document"]) for source, by_side in vectors.items()}
    scored = compression(pairs, params.evaluate.truncate_dims, limits)
    return {f"{precision}/{dim}": by_source for (precision, dim), by_source in scored.items()}


def _compression_figures(kept: OfTask, dims: tuple[int, ...]) -> dict[str, Any]:
    """nDCG@10 by precision and dimension, and what each keeps of the full float vectors'."""
    from stages.evaluation.comparison import overall
    from stages.metrics import bootstrap

    full = overall(kept[f"float32/{max(dims)}"])
    figures: dict[str, dict[str, float]] = {}
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for cell, by_source in kept.items():
        precision, _, dim = cell.partition("/")
        figures.setdefault(precision, {})[dim] = overall(by_source).figure
        shares.setdefault(precision, {})[dim] = bootstrap.ratio(overall(by_source), full).as_dict()
    return {"compression": figures, "compression_kept": shares}


def _summary(params: Params, metrics: dict[str, Any], draws: dict[str, OfTask]) -> dict[str, "float | Estimate"]:
    """The flat figures of the tasks that gates name; shares and differences of scores in [0, 1]."""
    from stages.evaluation.comparison import overall
    from stages.metrics import bootstrap
    from stages.metrics.bootstrap import Estimate

    summary: dict[str, float | Estimate] = {
        f"{name}_ndcg_at_10": metrics["retrieval"][contender]["mean"]["ndcg_at_10"]
        for name, contender in (("retrieval", "retrieval"), ("teacher", "teacher"))
    }
    for task, found in metrics["comparisons"].items():
        key, ours = task.replace("-", "_"), adapter_of(task)
        summary[f"{key}_retention"] = Estimate(**found["of_teacher"][ours])
        over = ("bm25", "base", "continued") if task == "retrieval" else ("base", "continued")
        summary |= {f"{key}_over_{other}": Estimate(**found["over"][other]) for other in over}
    for source in params.evaluate.sources.retrieval:
        ours, lexical = (overall(draws["retrieval"][name], [source]) for name in ("retrieval", "bm25"))
        summary[f"retrieval_over_bm25_{source}"] = bootstrap.difference(ours, lexical)
    return summary


def _summary_of_size(params: Params, metrics: dict[str, Any]) -> dict[str, "float | Estimate"]:
    """What smaller vectors and weights keep."""
    from stages.metrics.bootstrap import Estimate

    kept, dims = metrics["compression_kept"], params.evaluate.truncate_dims
    full, half = str(max(dims)), str(_half(dims))
    cells = {"binary": ("binary", full), "int8": ("int8", full), "half_dimensions": ("float32", half)}
    return {
        **{f"{name}_retention": Estimate(**kept[precision][dim]) for name, (precision, dim) in cells.items()},
        "int8_weights_cosine_min": min(one["cosine_min"] for one in metrics["weights_int8"].values()),
        "model_megabytes": max(one["float_megabytes"] for one in metrics["weights_int8"].values()),
    }


def _summary_of_long(params: Params, contenders: "Contenders", long: "LongScores") -> dict[str, "float | Estimate"]:
    from stages.evaluation.long import summary

    if not long:
        return {}
    return summary(long, _release_theta(contenders), params.seed, params.evaluate.num_resamples)


def _half(dims: tuple[int, ...]) -> int:
    """The largest listed dimension that is at most half of the full one."""
    return max((dim for dim in dims if 2 * dim <= max(dims)), default=max(dims))


def _write(params: Params, contenders: "Contenders", metrics: dict[str, Any], output: Path) -> None:
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
    curves |= {f"adapt@{task}": read_curve(ADAPTED / task / "curve.csv") for task in TASKS}
    contents = {"metrics": metrics, "curves": curves, "about": _about(params, contenders)}
    (output / "report.json").write_text(json.dumps(contents) + "\n", encoding="utf-8")
    (output / "report.html").write_text(render_report(metrics, curves, contents["about"]), encoding="utf-8")


def _evidence(params: Params, samples: "dict[str, dict[str, dict[str, Sample]]]", vectors: Any) -> "Evidence":
    from stages.evaluation.evidence import Evidence, digests_of_tests

    sources = params.evaluate.sources.model_dump(by_alias=True)
    named = {task: sources[task] for task in samples}
    return Evidence(samples, vectors, digests_of_tests(CURATED, named, params.seed))


def _about(params: Params, contenders: "Contenders") -> dict[str, Any]:
    from stages.training.tracking import git_state

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
        "student": _student(contenders),
        "sources": [{**one, **one["rows"]} for one in lineage["sources"]],
        "notes": notes,
    }


def _teacher(params: Params) -> dict[str, Any]:
    """Name and dimensions; parameters where it is a backbone alone."""
    from stages.corpus.vectors import VectorStore
    from stages.modeling.encoder import load_backbone

    teacher, parameters = params.embed.teacher, None
    if teacher.kind == "transformer":
        parameters = sum(parameter.numel() for parameter in load_backbone(teacher.path).parameters())
    return {"name": teacher.name, "dimensions": VectorStore(EMBEDDED).dimensions, "parameters": parameters}


def _student(contenders: "Contenders") -> dict[str, Any]:
    base, adapted = contenders.encoder("base"), contenders.encoder("retrieval")
    sizes = [sum(parameter.numel() for parameter in encoder.parameters()) for encoder in (base, adapted)]
    return {
        "parameters": sizes[0],
        "adapter_parameters": sizes[1] - sizes[0],
        "dimensions": base.dimensions,
        "layers": base.backbone.config.num_hidden_layers,
        "architecture": base.backbone.config.model_type,
        "pooling": base.settings.pooling,
    }


if __name__ == "__main__":
    main()
