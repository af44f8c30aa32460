"""The flat figures of an evaluation, for gates to judge, and the headline that DVC and MLflow show.

A figure is a share or a difference of scores in [0, 1], unless its name says otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.evaluation.comparison import overall
from stages.evaluation.tasks import adapter_of
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Draws, Estimate

Summary = dict[str, float | Estimate]
# The score that stands for a task in the headline.
MAIN_SCORES = {
    "retrieval": "ndcg_at_10",
    "unseen": "ndcg_at_10",
    "text-matching": "spearman",
    "clustering": "v_measure",
    "classification": "accuracy",
}
# Headline name -> name in the summary.
HEADLINE = {
    "teacher_share": "retrieval_retention",
    "over_bm25": "retrieval_over_bm25",
    "needle": "long_needle_ndcg_at_1",
    "passkey": "long_passkey_ndcg_at_1",
    "articles": "long_articles_ndcg_at_10",
    "half_dims_share": "half_dimensions_retention",
    "int8_share": "int8_retention",
    "binary_share": "binary_retention",
    "int8_parity": "int8_weights_cosine_min",
    "size_mb": "model_megabytes",
}


def headline(figures: Mapping[str, Any]) -> dict[str, float]:
    """Pick about fifteen of all figures under short names, of which a row of `dvc exp show` consists.

    They are the score of each task's adapter, and of retrieval: its share of the teacher's score, its lead over BM25,
    its scores on long documents, the share of its score that smaller vectors keep; of int8 weights the least cosine
    with float weights; and the size of a model in megabytes. Those that are undefined are left out.

    Args:
        figures: the content of figures.json.
    """
    scores = {
        task.replace("-", "_"): figures[task][adapter_of(task)]["mean"][score]
        for task, score in MAIN_SCORES.items()
        if task in figures
    }
    summary = figures["summary"]
    named = scores | {short: summary[name] for short, name in HEADLINE.items() if name in summary}
    return {name: value for name, value in named.items() if value is not None}


def task_summary(draws: Mapping[str, Mapping[str, Mapping[str, Draws]]]) -> Summary:
    """Compare each adapter with the teacher, the base and the base trained on; retrieval also with BM25.

    Args:
        draws: draws by task, model and source.
    """
    flat: Summary = {}
    if "retrieval" in draws:
        of_retrieval = draws["retrieval"]
        flat = {f"{model}_ndcg_at_10": overall(of_retrieval[model]).figure for model in ("retrieval", "teacher")}
    for task, of_task in draws.items():
        key, means = task.replace("-", "_"), {model: overall(by_source) for model, by_source in of_task.items()}
        ours = means[adapter_of(task)]
        flat[f"{key}_retention"] = bootstrap.ratio(ours, means["teacher"])
        baselines = ("bm25", "base", "continued") if task == "retrieval" else ("base", "continued")
        flat |= {f"{key}_over_{model}": bootstrap.difference(ours, means[model]) for model in baselines}
    for source, adapter in draws.get("retrieval", {}).get("retrieval", {}).items():
        flat[f"retrieval_over_bm25_{source}"] = bootstrap.difference(adapter, draws["retrieval"]["bm25"][source])
    return flat


def size_summary(
    compression_kept: Mapping[str, Mapping[str, Mapping[str, float]]] | None,
    int8_weights: Mapping[str, Mapping[str, float]],
    dims: Sequence[int],
) -> Summary:
    """Summarise what smaller vectors and int8 weights keep.

    Args:
        compression_kept: shares by precision and dimension, of `compression_figures`; None without retrieval.
        int8_weights: cost and saving of int8 weights by task, of `weights_facts`.
        dims: dimensions in rising order; half of them means the largest that is at most half of the full one.
    """
    full = max(dims)
    half = max((dim for dim in dims if 2 * dim <= full), default=full)
    cells = {"binary": ("binary", full), "int8": ("int8", full), "half_dimensions": ("float32", half)}
    flat: Summary = {
        f"{name}_retention": Estimate(**compression_kept[precision][str(dim)])
        for name, (precision, dim) in cells.items()
        if compression_kept is not None
    }
    cosines = [of_task["cosine_min"] for of_task in int8_weights.values() if "cosine_min" in of_task]
    if cosines:
        flat["int8_weights_cosine_min"] = float(np.min(cosines))
    return flat | {"model_megabytes": max(of_task["float_megabytes"] for of_task in int8_weights.values())}


def split(summary: Summary) -> dict[str, dict[str, Any]]:
    """Split figures into `summary`, each by name, and `intervals`, the low, high and p of those that have them."""
    estimates = {name: value.as_dict() for name, value in summary.items() if isinstance(value, Estimate)}
    return {
        "summary": {name: value.figure if isinstance(value, Estimate) else value for name, value in summary.items()},
        "intervals": {name: {bound: one[bound] for bound in ("low", "high", "p")} for name, one in estimates.items()},
    }
