"""Figures that are undefined on a test set: null where they are written, with a reason where they are read."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from stages.evaluation.summary import MAIN_SCORES

# End of a figure's name, or a metric -> why it may be undefined.
REASONS = {
    "_retention": "the score of which it is a share is undefined or not above 0",
    "spearman": "all of the model's similarities, or all scores of people, are equal",
    "v_measure": "the test rows have one label",
    "accuracy": "the dev rows have one label, so that no classifier is fitted",
    "": "one of the scores behind it is undefined",
}
NO_INTERVAL = "its interval is undefined: too many resamples of its few test rows have no score"


def reason(name: str) -> str:
    """Say why a figure is undefined, by its name.

    >>> reason("clustering_retention")
    'the score of which it is a share is undefined or not above 0'
    """
    return next(why for end, why in REASONS.items() if name.endswith(end))


def with_nulls(figures: Any) -> Any:
    """Replace the numbers that are not finite by None, which JSON can write."""
    if isinstance(figures, Mapping):
        return {name: with_nulls(value) for name, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [with_nulls(value) for value in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def undefined_figures(figures: Mapping[str, Any]) -> list[str]:
    """Say in a sentence for each which figures are undefined, and why.

    Args:
        figures: the content of figures.json.
    """
    return [*_undefined_scores(figures), *_undefined_summary(figures)]


def _undefined_scores(figures: Mapping[str, Any]) -> Iterator[str]:
    for task, metric in MAIN_SCORES.items():
        by_model = figures.get(task, {})
        for source in dict.fromkeys(source for scores in by_model.values() for source in scores if source != "mean"):
            models = [
                model for model, scores in by_model.items() if source in scores and scores[source][metric] is None
            ]
            if models:
                yield f"{task}, {source}: {metric} of {', '.join(models)} is undefined: {reason(metric)}."


def _undefined_summary(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, value in figures["summary"].items():
        if value is None:
            yield f"{name} is undefined, and passes no gate: {reason(name)}."
        elif None in figures["intervals"].get(name, {}).values():
            yield f"{name}: {NO_INTERVAL}."
