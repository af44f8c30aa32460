"""Long documents in the report: a chart over length for each task, and the same figures as a table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup

from stages.reporting import number_format as formats
from stages.reporting.figures import DASHES, MARKERS, PHASE_WIDTH, coordinates, doubling_axis, finish, legend
from stages.reporting.svg import SERIES, STYLE, canvas, to_svg

# Title, metric, what is asked.
TASKS = {
    "needle": ("Needles", "nDCG@1", "Does a question find the document that hides a sentence with its answer?"),
    "passkey": ("Pass keys", "nDCG@1", "Does a question find the document that hides someone's pass key?"),
    "articles": ("Articles", "nDCG@10", "Does an article's first sentence find the rest of it, its title masked?"),
}
MODELS = {"before": "Before", "after": "After"}


class Line(NamedTuple):
    """A student at a RoPE theta: its name, its places among students and thetas, and nDCG by length."""

    label: str
    model: int
    theta: int
    by_length: dict[int, float]


class LongTask(NamedTuple):
    """One task, ready for the template."""

    title: str
    metric: str
    question: str
    lengths: list[int]
    lines: list[Line]
    figure: Markup


def long_tasks(long: Mapping[str, Any]) -> list[LongTask]:
    """The tasks that were measured, from task to model to theta to length to nDCG of 0 to 1."""
    return [_task(key, long[key]) for key in TASKS if long.get(key)]


def _task(key: str, by_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> LongTask:
    thetas = sorted({theta for by_theta in by_model.values() for theta in by_theta}, key=float)
    lines = [
        Line(
            f"{MODELS[model]}, theta {formats.count(float(theta))}",
            list(MODELS).index(model),
            thetas.index(theta),
            {int(length): value for length, value in by_length.items()},
        )
        for model, by_theta in by_model.items()
        for theta, by_length in by_theta.items()
    ]
    lengths = sorted({length for line in lines for length in line.by_length})
    title, metric, question = TASKS[key]
    return LongTask(title, metric, question, lengths, lines, Markup(length_curve(key, lines)))


def length_curve(key: str, lines: list[Line]) -> str:
    """Draw a task's nDCG by length: a colour for each student, a dash and a marker for each theta."""
    title, metric, _ = TASKS[key]
    tips: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        figure = canvas(PHASE_WIDTH, 290)
        axes = figure.subplots()
        for number, line in enumerate(lines):
            look: dict[str, Any] = {"color": SERIES[line.model], "marker": MARKERS[line.theta % len(MARKERS)]}
            short = line.label.replace("theta", "\u03b8")
            points = sorted((float(length), value * 100) for length, value in line.by_length.items())
            axes.plot(*coordinates(points), **look, linestyle=DASHES[line.theta % len(DASHES)], label=short)
            for length, value in points:
                gid = f"{number}-{length:.0f}"
                axes.plot([length], [value], **look, gid=gid, clip_on=False)
                tips[gid] = f"{line.label}, {formats.count(length)} tokens: {formats.fixed(value)}"
        doubling_axis(axes, {length for line in lines for length in line.by_length})
        axes.set(xlabel="tokens of a document (log scale)", ylabel=f"{metric} ({formats.TIMES}100)")
        legend(axes, columns=2)
        finish(figure, title)
    return to_svg(figure, f"long-{key}", f"{title} by length of the documents", "; ".join(tips.values()), tips)
