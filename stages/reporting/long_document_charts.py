"""Long documents in the report: a chart over length for each task, and the same figures as a table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup

from stages.reporting.figures import DASHES, MARKERS, PANEL_WIDTH, doubling_axis, finish, legend, measured_line
from stages.reporting.number_format import TIMES, count
from stages.reporting.svg import SERIES, STYLE, canvas, to_svg

# Title, metric and question of each task.
TASKS = {
    "needle": ("Needles", "nDCG@1", "Does a question find the document that hides a sentence with its answer?"),
    "passkey": ("Pass keys", "nDCG@1", "Does a question find the document that hides a person's pass key?"),
    "articles": ("Articles", "nDCG@10", "Does an article's first sentence, its title masked, find the rest of it?"),
}
MODELS = ("before", "after")


class LengthLine(NamedTuple):
    """nDCG by length of a student at a RoPE theta; a colour for each student, a dash and marker for each theta."""

    label: str
    look: dict[str, Any]
    by_length: dict[int, float]


class LengthChart(NamedTuple):
    """A task of long documents, ready for the template."""

    title: str
    metric: str
    question: str
    lengths: list[int]
    lines: list[LengthLine]
    figure: Markup


def length_charts(long: Mapping[str, Any]) -> list[LengthChart]:
    """Charts of the tasks that were measured.

    Args:
        long: task to model to theta to length to nDCG, 0 to 1.
    """
    return [_length_chart(task, long[task]) for task in TASKS if long.get(task)]


def _length_chart(task: str, by_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> LengthChart:
    thetas = sorted({theta for by_theta in by_model.values() for theta in by_theta}, key=float)
    lines = []
    for model, by_theta in by_model.items():
        for theta, by_length in by_theta.items():
            place = thetas.index(theta)
            look = {"marker": MARKERS[place % len(MARKERS)], "linestyle": DASHES[place % len(DASHES)]}
            look["color"] = SERIES[MODELS.index(model)]
            label = f"{model.capitalize()}, \u03b8 {count(float(theta))}"
            lines.append(LengthLine(label, look, {int(length): value for length, value in by_length.items()}))
    lengths = sorted({length for line in lines for length in line.by_length})
    title, metric, question = TASKS[task]
    tips: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        figure = canvas(PANEL_WIDTH, 290)
        axes = figure.subplots()
        for line in lines:
            tips |= measured_line(axes, line.label, line.by_length, "tokens", line.look)
        doubling_axis(axes, lengths)
        axes.set(xlabel="tokens of a document (log scale)", ylabel=f"{metric} ({TIMES}100)")
        legend(axes, columns=2)
        finish(figure, title)
    description = "; ".join(tips.values())
    svg = to_svg(figure, f"long-{task}", f"{title} by length of the documents", description, tips)
    return LengthChart(title, metric, question, lengths, lines, svg)
