"""The flat figures of an evaluation, by the names that gates use: shares and differences of scores in [0, 1]."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.evaluation.comparison import overall
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Draws, Estimate

Summary = dict[str, float | Estimate]
OfContender = Mapping[str, Mapping[str, Draws]]


def adapter_of(task: str) -> str:
    """The contender that a task is about: the adapter of its name; retrieval's also where nothing was trained on."""
    return "retrieval" if task == "unseen" else task


def of_tasks(draws: Mapping[str, OfContender]) -> Summary:
    """What each adapter keeps of the teacher, and adds to the base and to the base trained on; retrieval against BM25.

    Args:
        draws: by task, contender and source.
    """
    flat: Summary = {
        f"{name}_ndcg_at_10": overall(draws["retrieval"][name]).figure for name in ("retrieval", "teacher")
    }
    for task, of_contender in draws.items():
        key, means = task.replace("-", "_"), {name: overall(one) for name, one in of_contender.items()}
        ours = means[adapter_of(task)]
        flat[f"{key}_retention"] = bootstrap.ratio(ours, means["teacher"])
        others = ("bm25", "base", "continued") if task == "retrieval" else ("base", "continued")
        flat |= {f"{key}_over_{other}": bootstrap.difference(ours, means[other]) for other in others}
    adapter, lexical = (draws["retrieval"][name] for name in ("retrieval", "bm25"))
    return flat | {
        f"retrieval_over_bm25_{source}": bootstrap.difference(adapter[source], lexical[source]) for source in adapter
    }


def compressed(cells: OfContender, dims: Sequence[int]) -> dict[str, Any]:
    """`compression`: nDCG@10 by precision and dimension; `compression_kept`: its share of the full float vectors'.

    Args:
        cells: by `precision/dimension` and source.
    """
    means = {cell: overall(by_source) for cell, by_source in cells.items()}
    full = means[f"float32/{max(dims)}"]
    figures: dict[str, dict[str, float]] = {}
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for cell, one in means.items():
        precision, _, dim = cell.partition("/")
        figures.setdefault(precision, {})[dim] = one.figure
        shares.setdefault(precision, {})[dim] = bootstrap.ratio(one, full).as_dict()
    return {"compression": figures, "compression_kept": shares}


def of_size(
    kept: Mapping[str, Mapping[str, Mapping[str, float]]],
    weights: Mapping[str, Mapping[str, float]],
    dims: Sequence[int],
) -> Summary:
    """What smaller vectors and weights keep.

    Args:
        kept: `compression_kept` of `compressed`.
        weights: what int8 weights cost and save, by task.
    """
    full, half = str(max(dims)), str(half_of(dims))
    cells = {"binary": ("binary", full), "int8": ("int8", full), "half_dimensions": ("float32", half)}
    return {
        **{f"{name}_retention": Estimate(**kept[precision][dim]) for name, (precision, dim) in cells.items()},
        "int8_weights_cosine_min": float(np.min([one["cosine_min"] for one in weights.values()])),
        "model_megabytes": max(one["float_megabytes"] for one in weights.values()),
    }


def half_of(dims: Sequence[int]) -> int:
    """The largest listed dimension that is at most half of the full one."""
    return max((dim for dim in dims if 2 * dim <= max(dims)), default=max(dims))


def split(summary: Summary) -> dict[str, dict[str, Any]]:
    """`summary`: every figure by name; `intervals`: low, high and p of those that have them."""
    intervals = {name: one.as_dict() for name, one in summary.items() if isinstance(one, Estimate)}
    return {
        "summary": {name: one.figure if isinstance(one, Estimate) else one for name, one in summary.items()},
        "intervals": {name: {bound: one[bound] for bound in ("low", "high", "p")} for name, one in intervals.items()},
    }
