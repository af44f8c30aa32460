"""mteb's own figures of the contenders, kept by the digests of model and rows so that nothing is scored twice."""

import hashlib
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mteb
from mteb.abstasks import AbsTask
from mteb.cache import ResultCache

from stages import evaluation, modeling
from stages.evaluation.mteb_models import MtebModel
from stages.evaluation.mteb_rows import draw_anew
from stages.tracking.runs import digest

# Of a result that mteb's cache gives back; one that was just computed has more.
DIGITS = 6
# task -> contender -> main score
Table = dict[str, dict[str, float]]


def benchmark(models: Mapping[str, MtebModel], tasks: Mapping[str, AbsTask], cache: Path) -> Table:
    """Main score of every model on every task, in [0, 1], as `mteb.evaluate` gives it.

    Args:
        cache: where mteb keeps its results; what is there for the same model, task and rows is not run again.
    """
    logging.getLogger("mteb").setLevel(logging.ERROR)
    return {
        name: {contender: _score(model, task, cache) for contender, model in models.items()}
        for name, task in tasks.items()
    }


def scored_by() -> str:
    """Twelve digits that tell this code, mteb and what it computes with from others, which might score otherwise."""
    parts = [digest(Path(package.__path__[0])) for package in (evaluation, modeling)]
    parts += [version(name) for name in ("mteb", "scikit-learn", "torch", "transformers")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _score(model: MtebModel, task: AbsTask, cache: Path) -> float:
    # Else a model would meet other draws than those before it, and others where these were kept.
    draw_anew(task)
    # A cache for each revision of the rows: mteb's own takes a complete result of another revision for this one's.
    of_rows = ResultCache(cache / task.metadata.dataset["revision"])
    found = mteb.evaluate(model, task, cache=of_rows, co2_tracker=False, show_progress_bar=False)
    return round(float(found.task_results[0].get_score()), DIGITS)
