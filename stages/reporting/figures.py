"""The report's figures as inline SVG: truncation, adapter over base, training curves.

Scores are drawn times 100, as everywhere in the report. Lines differ in dash and marker, not in colour alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from stages.reporting import number_format as formats
from stages.reporting.svg import INK, MUTED, SERIES, STYLE, canvas, to_svg

WIDTH = 440  # CSS pixels: readable on a phone without zoom, and two fit beside each other on a desktop
PHASE_WIDTH = 320
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
FEW_POINTS = 20  # up to here each point gets a marker
MAX_POINTS = 160  # of one line: half of the panel's pixels
PHASES = {"distill": "Stage 1: distillation", "extend": "Stage 1: longer texts", "adapt": "Adapter"}
TOTAL, DEV = "loss", "dev"
LOG_RATIO = 30.0  # loss terms further apart than this cannot be told apart on a linear axis
# What the training loop logs beside its loss terms.
NOT_LOSSES = {
    "step",
    "epoch",
    "seconds",
    "lr",
    "learning_rate",
    "gradient_norm",
    "grad_norm",
    "temperature",
    "tokens",
    "tokens_per_second",
}

Rows = Sequence[Mapping[str, Any]]
Points = list[tuple[float, float]]


class Line(NamedTuple):
    """One line of a panel: its name, and (step, value) points in order."""

    name: str
    points: Points


def truncation_curve(compression: Mapping[str, Mapping[str, float]], teacher: float | None) -> str:
    """Draw nDCG@10 by kept dimensions, a line for each precision.

    Args:
        compression: Precision to dimension (as text) to nDCG@10, 0 to 1.
        teacher: The teacher's nDCG@10 at its full dimension, drawn as a dashed line.
    """
    tips: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        figure = canvas(WIDTH, 340)
        axes = figure.subplots()
        for number, (precision, by_dimension) in enumerate(compression.items()):
            _precision_line(axes, number, precision, by_dimension, tips)
        if teacher is not None:
            axes.axhline(teacher * 100, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, gid="teacher")
            tips["teacher"] = f"teacher, full dimension: {formats.score(teacher)}"
            axes.lines[-1].set_label("teacher, full dimension")
        doubling_axis(axes, {int(dimension) for curve in compression.values() for dimension in curve})
        axes.set(xlabel="dimensions kept (log scale)", ylabel=f"nDCG@10 ({formats.TIMES}100)")
        legend(axes, columns=2)
        finish(figure, "Retrieval quality of shortened and quantised embeddings")
    described = "; ".join(tips.values()) or "no measurements"
    return to_svg(figure, "truncation", "Retrieval quality by dimensions and precision", described, tips)


def _precision_line(
    axes: Axes, number: int, precision: str, by_dimension: Mapping[str, float], tips: dict[str, str]
) -> None:
    """Draw one precision as a line, and each measurement as a marker with its own tip."""
    colour, marker, dash = SERIES[number], MARKERS[number], DASHES[number]
    points = sorted((int(dimension), value * 100) for dimension, value in by_dimension.items())
    label = precision.replace("_", " ")
    axes.plot(*coordinates(points), color=colour, linestyle=dash, marker=marker, markersize=6, label=label)
    for dimension, value in points:
        gid = f"{precision}-{dimension}"
        axes.plot([dimension], [value], color=colour, marker=marker, markersize=6, gid=gid, clip_on=False)
        tips[gid] = f"{label}, {dimension} dimensions: {formats.fixed(value)}"


def doubling_axis(axes: Axes, measured: Iterable[int]) -> None:
    """Doublings of equal width, a tick at each measured dimension or length, ten points of height or more up to 100."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = sorted(measured)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    low, high = axes.get_ylim()
    spare = max(0.0, 10.0 - (high - low)) / 2
    axes.set_ylim(max(0.0, low - spare), min(100.0, high + spare))


def over_base_plot(over_base: Mapping[str, Mapping[str, float | None]]) -> str:
    """Draw each adapter's score minus the base's as a dot with its 95% interval, in points.

    Args:
        over_base: Task to `figure`, `low`, `high`; a missing bound draws the dot alone.
    """
    tips: dict[str, str] = {}
    tasks = [(task, row) for task, row in over_base.items() if formats.is_known(row.get("figure"))]
    with matplotlib.rc_context(STYLE):
        figure = canvas(WIDTH, 110 + 42 * max(1, len(tasks)))
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for height, (task, row) in enumerate(tasks):
            tips[f"over-{height}"] = f"{formats.words(task)}: {_difference_dot(axes, height, row)}"
        axes.set_yticks(range(len(tasks)), [formats.words(task) for task, _ in tasks], color=INK)
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.16)
        axes.set_xlabel(f"adapter minus base, points ({formats.TIMES}100)")
        finish(figure, "Adapter over base, with 95% intervals")
    return to_svg(figure, "over-base", "Adapter minus base for each task", "; ".join(tips.values()), tips)


def _difference_dot(axes: Axes, height: int, row: Mapping[str, float | None]) -> str:
    """Draw one task at its height and return its tip."""
    difference, low, high = (row.get(key) for key in ("figure", "low", "high"))
    assert difference is not None, "tasks without a difference are left out by the caller"
    has_interval = low is not None and high is not None
    if low is not None and high is not None:
        ends = [low * 100, high * 100]
        axes.plot(ends, [height] * 2, color=SERIES[0], linewidth=2.4, marker="|", markersize=9)
    value = difference * 100
    fill = "full" if has_interval else "none"
    axes.plot(value, height, color=SERIES[0], marker="o", markersize=8, fillstyle=fill, gid=f"over-{height}")
    label = formats.points(difference)
    axes.annotate(label, (value, height), (0, 8), textcoords="offset points", ha="center")
    interval = f"{formats.points(low)} to {formats.points(high)}" if has_interval else "no interval"
    return f"{label} points ({interval})"


def loss_terms(phases: Iterable[Rows]) -> list[str]:
    """The names of all loss terms, sorted: the order that gives a term one colour in every phase."""
    keys = {key for rows in phases for row in rows for key in row} - NOT_LOSSES - {TOTAL}
    return sorted(key for key in keys if not key.startswith(DEV))


def training_curves(phase: str, rows: Rows, terms: Sequence[str] = ()) -> str:
    """Draw one training phase: its loss terms above, its development metric below.

    Args:
        phase: The phase's name, such as `distill` or `adapt@retrieval`.
        rows: One mapping a logged step, with `step` and any of the loss terms and `dev*` metrics.
        terms: `loss_terms` of all the phases that stand beside each other; of this one where none are given.
    """
    losses, metrics = _lines(rows)
    terms = terms or loss_terms([rows])
    with matplotlib.rc_context(STYLE):
        figure = canvas(PHASE_WIDTH, 320 if metrics else 220)
        heights = [3, 2] if metrics else [1]
        axes = list(figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights).flat)
        _draw(axes[0], losses, terms)
        legend(axes[0], columns=2)
        axes[0].set_ylabel(_scale_losses(axes[0], losses))
        if metrics:
            _draw(axes[1], metrics, [line.name for line in metrics])
            axes[1].set_ylabel("dev metric")
            if len(metrics) > 1:
                legend(axes[1], columns=2)
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(4, integer=True))
        finish(figure, phase_title(phase))
    last = [f"{formats.words(line.name)} {line.points[-1][1]:.4g}" for line in losses + metrics]
    described = f"Last values: {', '.join(last)}" if last else "Nothing was logged"
    return to_svg(figure, figure_key(phase), f"Training curves of {phase_title(phase)}", described, {})


def phase_title(phase: str) -> str:
    """Name a phase for people: `adapt@retrieval` is `Adapter: retrieval`."""
    name, _, task = phase.partition("@")
    title = PHASES.get(name, formats.words(name))
    return f"{title}: {formats.words(task).lower()}" if task else title


def figure_key(phase: str) -> str:
    """An id for a phase: letters, digits and hyphens."""
    return "training-" + "".join(letter if letter.isalnum() else "-" for letter in phase)


def _lines(rows: Rows) -> tuple[list[Line], list[Line]]:
    """Sort what was logged into loss terms (the total first) and development metrics."""
    keys = sorted({key for row in rows for key in row} - NOT_LOSSES, key=lambda key: (key != TOTAL, key))
    lines = [Line(key, thin(series(rows, key))) for key in keys]
    drawn = [line for line in lines if line.points]
    losses = [line for line in drawn if not line.name.startswith(DEV)]
    if len(losses) == 2 and losses[0].name == TOTAL and _coincide(*losses):
        del losses[0]  # a single term of weight one is its own total
    return losses, [line for line in drawn if line.name.startswith(DEV)]


def _coincide(line: Line, other: Line) -> bool:
    """Whether two lines lie on each other."""
    pairs = zip_longest(line.points, other.points, fillvalue=(math.nan, math.nan))
    return all(math.isclose(a[1], b[1], rel_tol=1e-3) for a, b in pairs)


def series(rows: Rows, key: str) -> Points:
    """The (step, value) points of one key, in order of step, without the rows that lack it."""
    return sorted((float(row["step"]), float(row[key])) for row in rows if formats.is_known(row.get(key)))


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """Average neighbouring points until at most `limit` are left."""
    size = -(-len(points) // limit)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def _draw(axes: Axes, lines: Sequence[Line], order: Sequence[str]) -> None:
    """Draw the lines of one panel; the total is in ink, the others in the colour and dash of their place."""
    for line in lines:
        place = 0 if line.name == TOTAL else order.index(line.name)
        axes.plot(
            *coordinates(line.points),
            color=INK if line.name == TOTAL else SERIES[place % len(SERIES)],
            linestyle=DASHES[(place + place // len(SERIES)) % len(DASHES)],
            linewidth=1.5,
            marker="o" if len(line.points) <= FEW_POINTS else None,
            markersize=3,
            label="Total" if line.name == TOTAL else formats.words(line.name),
        )


def _scale_losses(axes: Axes, losses: Sequence[Line]) -> str:
    """Choose a log axis where terms of very different size would hide each other; return the axis label."""
    values = [abs(value) for line in losses for _, value in line.points]
    positive = all(value > 0 for line in losses for _, value in line.points)
    if not values or not positive or max(values) / min(values) < LOG_RATIO:
        return "loss"
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    return "loss (log scale)"


def coordinates(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Split points into their x and their y."""
    return [x for x, _ in points], [y for _, y in points]


def legend(axes: Axes, columns: int) -> None:
    """Name the lines of a panel above it."""
    if axes.get_legend_handles_labels()[1]:
        corner = (-0.02, 1.0)
        axes.legend(loc="lower left", bbox_to_anchor=corner, ncols=columns, fontsize=10.5, borderpad=0.2)


def finish(figure: Figure, title: str) -> None:
    """Put the title at the upper left, and take away the frames behind the panels."""
    figure.suptitle(title, x=0.02, ha="left", fontsize=12.5, fontweight="bold")
    for axes in figure.axes:
        axes.patch.set_visible(False)
