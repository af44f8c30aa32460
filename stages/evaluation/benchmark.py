"""mteb's own figures of the contenders, kept by the digests of model and rows so that nothing is scored twice."""

import logging
from collections.abc import Mapping
from pathlib import Path

import mteb
from mteb.abstasks import AbsTask
from mteb.cache import ResultCache

from stages.evaluation.mteb_models import MtebModel

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


def _score(model: MtebModel, task: AbsTask, cache: Path) -> float:
    # A cache for each revision of the rows: mteb's own takes a complete result of another revision for this one's.
    of_rows = ResultCache(cache / task.metadata.dataset["revision"])
    found = mteb.evaluate(model, task, cache=of_rows, co2_tracker=False, show_progress_bar=False)
    return round(float(found.task_results[0].get_score()), DIGITS)
