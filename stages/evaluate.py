"""Evaluate: every contender on every task, on entities that nothing was trained on; figures, plots and the report.

Writes data/evaluated: metrics.json (its `summary` is what gates read), truncation.csv and report.html.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.params import TASKS, Params, load

if TYPE_CHECKING:
    from stages.evaluation.contenders import Contenders
    from stages.evaluation.tasks import Score

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
DISTILLED = Path("data/distilled")
EXTENDED = Path("data/extended")
ADAPTED = Path("data/adapted")
QUANTIZED = Path("data/quantized")
OUTPUT = Path("data/evaluated")
INPUTS = (CURATED, EMBEDDED, DISTILLED, EXTENDED, QUANTIZED)
MAIN_FIGURE = {
    "retrieval": "ndcg_at_10",
    "text-matching": "spearman",
    "clustering": "v_measure",
    "classification": "accuracy",
}
# k-means depends on its start: the mean over these many starts is what counts.
CLUSTERING_SEEDS = 5

Scores = dict[str, dict[str, dict[str, "Score"]]]  # task -> contender -> source -> score


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
    from stages.evaluation.comparison import figures, over_base
    from stages.evaluation.contenders import Contenders

    torch.set_num_threads(params.engine.threads)
    release = QUANTIZED / params.name
    teacher = TeacherVectors(EMBEDDED, params.embed.prompts, params.embed.max_tokens, params.embed.long)
    contenders = Contenders(DISTILLED, release, teacher, params.engine.precision)
    scores = _score_all(params, contenders)
    metrics: dict[str, Any] = {task: figures(by_contender) for task, by_contender in scores.items()}
    metrics["over_base"] = {
        task: over_base(
            scores[task][task], scores[task]["base"], MAIN_FIGURE[task], params.seed, params.evaluate.num_resamples
        )
        for task in TASKS
    }
    metrics["long"] = _long(params, contenders)
    metrics["compression"] = _compression(params, contenders, release)
    metrics["weights_int8"] = json.loads((QUANTIZED / "weights.json").read_text(encoding="utf-8"))
    metrics["summary"] = _summary(params, metrics) | _summary_beyond(contenders, metrics)
    _write(params, contenders, metrics, output)
    return metrics


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


def _long(params: Params, contenders: "Contenders") -> dict[str, Any]:
    """Long documents by task, model, RoPE theta and length; empty where the recipe names none."""
    from stages.evaluation.long import long_figures, long_tasks

    settings = params.evaluate.long
    if settings.haystacks is None and settings.articles is None:
        return {}
    sources = (settings.haystacks, settings.articles, settings.num_documents)
    return long_figures(
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


def _compression(params: Params, contenders: "Contenders", release: Path) -> dict[str, dict[str, float]]:
    from stages.corpus.tables import read_split
    from stages.evaluation.compression import compression

    vectors = []
    for source in params.evaluate.sources.retrieval:
        pairs = read_split(CURATED, "pairs", "test", [source])
        queries, documents = (
            contenders.embed("retrieval", pairs[side].to_pylist(), side, source) for side in ("query", "document")
        )
        vectors.append((queries, documents))
    limits = json.loads((release / "calibration.json").read_text(encoding="utf-8"))["int8_limit"]["retrieval"]
    return compression(vectors, params.evaluate.truncate_dims, limits)


def _summary(params: Params, metrics: dict[str, Any]) -> dict[str, float]:
    """The flat figures that gates name; shares and differences of scores in [0, 1]."""
    retrieval = {name: by_source["mean"]["ndcg_at_10"] for name, by_source in metrics["retrieval"].items()}
    kept = metrics["compression"]
    full, half = (str(dim) for dim in (max(params.evaluate.truncate_dims), _half(params.evaluate.truncate_dims)))
    summary = {
        "retrieval_retention": retrieval["retrieval"] / retrieval["teacher"],
        "retrieval_ndcg_at_10": retrieval["retrieval"],
        "teacher_ndcg_at_10": retrieval["teacher"],
        "retrieval_over_bm25": retrieval["retrieval"] - retrieval["bm25"],
    }
    for source in params.evaluate.sources.retrieval:
        ours, lexical = (metrics["retrieval"][name][source]["ndcg_at_10"] for name in ("retrieval", "bm25"))
        summary[f"retrieval_over_bm25_{source}"] = ours - lexical
    for task in TASKS:
        adapter, continued = (metrics[task][name]["mean"][MAIN_FIGURE[task]] for name in (task, "continued"))
        key = task.replace("-", "_")
        summary[f"{key}_over_base"] = metrics["over_base"][task]["difference"]
        summary[f"{key}_over_continued"] = adapter - continued
    return summary | {
        "binary_retention": kept["binary"][full] / kept["float32"][full],
        "int8_retention": kept["int8"][full] / kept["float32"][full],
        "half_dimensions_retention": kept["float32"][half] / kept["float32"][full],
        "int8_weights_cosine_min": min(one["cosine_min"] for one in metrics["weights_int8"].values()),
        "model_megabytes": max(one["float_megabytes"] for one in metrics["weights_int8"].values()),
    }


def _summary_beyond(contenders: "Contenders", metrics: dict[str, Any]) -> dict[str, float]:
    """Flat figures of what a recipe may leave out: sources that nothing was trained on, and long documents."""
    from stages.evaluation.long import summary

    flat: dict[str, float] = {}
    if "unseen" in metrics:
        ours, teacher = (metrics["unseen"][name]["mean"]["ndcg_at_10"] for name in ("retrieval", "teacher"))
        flat["unseen_retention"] = ours / teacher
    if metrics["long"]:
        flat |= summary(metrics["long"], _release_theta(contenders))
    return flat


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
    page = render_report(metrics, curves, _about(params, contenders, metrics))
    (output / "report.html").write_text(page, encoding="utf-8")


def _about(params: Params, contenders: "Contenders", metrics: dict[str, Any]) -> dict[str, Any]:
    from stages.metrics.gates import judge
    from stages.training.tracking import git_state

    gates = {name: (gate.min, gate.max) for name, gate in params.promote.gates.items()}
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
        "gates": [
            {"name": one.metric, "value": one.figure, "min": one.min, "max": one.max, "passed": one.passed}
            for one in judge(metrics["summary"], gates)
        ],
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
