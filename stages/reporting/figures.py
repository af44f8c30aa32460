"""Figures of the report as inline SVG: scores by dimensions or length, and differences with their intervals.

Scores are drawn times 100, as everywhere in the report. Lines differ in dash and marker, not in colour alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stages.reporting.number_format import TIMES, fixed, is_known, points, score, words
from stages.reporting.svg import INK, MUTED, SERIES, STYLE, canvas, to_svg
from stages.reporting.verdicts import IntervalEstimate

WIDTH = 440  # CSS pixels: readable on a phone without zoom, and two fit side by side on a desktop
PANEL_WIDTH = 320
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
REFERENCE_LINE: Any = {"color": MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.2}

Points = list[tuple[float, float]]


def truncation_figure(compression: Mapping[str, Mapping[str, float]], teacher: float | None) -> Markup:
    """Draw nDCG@10 by kept dimensions, with a line for each precision.

    Args:
        compression: precision to dimension (as text) to nDCG@10, 0 to 1.
        teacher: the teacher's nDCG@10 at its full dimension, drawn as a dashed line.
    """
    tips: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        figure = canvas(WIDTH, 340)
        axes = figure.subplots()
        for number, (precision, by_dimension) in enumerate(compression.items()):
            look = {"color": SERIES[number], "marker": MARKERS[number], "markersize": 6}
            label, values = precision.replace("_", " "), {int(key): value for key, value in by_dimension.items()}
            tips |= measured_line(axes, label, values, "dimensions", look | {"linestyle": DASHES[number]})
        if teacher is not None:
            axes.axhline(teacher * 100, **REFERENCE_LINE, gid="teacher", label="teacher, full dimension")
            tips["teacher"] = f"teacher, full dimension: {score(teacher)}"
        doubling_axis(axes, sorted({int(dimension) for curve in compression.values() for dimension in curve}))
        axes.set(xlabel="dimensions kept (log scale)", ylabel=f"nDCG@10 ({TIMES}100)")
        legend(axes, columns=2)
        finish(figure, "Retrieval quality of shortened and quantised embeddings")
    description = "; ".join(tips.values()) or "no measurements"
    return to_svg(figure, "truncation", "Retrieval quality by dimensions and precision", description, tips)


def measured_line(
    axes: Axes, label: str, values: Mapping[int, float], unit: str, look: Mapping[str, Any]
) -> dict[str, str]:
    """Draw scores by dimensions or length as a line, with a marker for each; return the markers' tips by their ids."""
    line = sorted((float(x), value * 100) for x, value in values.items())
    axes.plot(*coordinates(line), **look, label=label)
    tips = {}
    for x, y in line:
        gid = f"{label}-{x:.0f}"
        axes.plot([x], [y], **look, gid=gid, clip_on=False)
        tips[gid] = f"{label}, {fixed(x, 0)} {unit}: {fixed(y)}"
    return tips


def doubling_axis(axes: Axes, ticks: Sequence[int]) -> None:
    """Give doublings equal width and each measurement a tick; show at least ten points of height, at most up to 100."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    low, high = axes.get_ylim()
    spare = max(0.0, 10.0 - (high - low)) / 2
    axes.set_ylim(max(0.0, low - spare), min(100.0, high + spare))


def over_base_figure(over_base: Mapping[str, IntervalEstimate]) -> Markup:
    """Draw each adapter's score minus the base's as a dot with its 95% interval, in points.

    Args:
        over_base: task to difference; an estimate without an interval is a hollow dot.
    """
    tips: dict[str, str] = {}
    tasks = [(task, change) for task, change in over_base.items() if is_known(change.figure)]
    with matplotlib.rc_context(STYLE):
        figure = canvas(WIDTH, 110 + 42 * max(1, len(tasks)))
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for height, (task, change) in enumerate(tasks):
            tips[f"over-{height}"] = f"{words(task)}: {_difference_dot(axes, height, change)}"
        axes.set_yticks(range(len(tasks)), [words(task) for task, _ in tasks], color=INK)
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.16)
        axes.set_xlabel(f"adapter minus base, points ({TIMES}100)")
        finish(figure, "Adapter minus base, with 95% intervals")
    return to_svg(figure, "over-base", "Adapter minus base for each task", "; ".join(tips.values()), tips)


def _difference_dot(axes: Axes, height: int, change: IntervalEstimate) -> str:
    """Draw one task at its height and return its tip."""
    assert change.figure is not None, "the caller leaves out tasks without a difference"
    value, label, interval = change.figure * 100, points(change.figure), "no interval"
    look: Any = {"color": SERIES[0], "marker": "o", "markersize": 8, "fillstyle": "none"}
    if change.low is not None and change.high is not None:
        ends = [change.low * 100, change.high * 100]
        axes.plot(ends, [height] * 2, color=SERIES[0], linewidth=2.4, marker="|", markersize=9)
        interval, look["fillstyle"] = f"{points(change.low)} to {points(change.high)}", "full"
    axes.plot(value, height, **look, gid=f"over-{height}")
    axes.annotate(label, (value, height), (0, 8), textcoords="offset points", ha="center")
    return f"{label} points ({interval})"


def coordinates(line: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Split points into their x and their y."""
    return [x for x, _ in line], [y for _, y in line]


def legend(axes: Axes, columns: int) -> None:
    """Name the lines of a panel above it."""
    if axes.get_legend_handles_labels()[1]:
        corner = (-0.02, 1.0)
        axes.legend(loc="lower left", bbox_to_anchor=corner, ncols=columns, fontsize=10.5, borderpad=0.2)


def finish(figure: Figure, title: str) -> None:
    """Put the title at the upper left and remove the background of the panels."""
    figure.suptitle(title, x=0.02, ha="left", fontsize=12.5, fontweight="bold")
    for axes in figure.axes:
        axes.patch.set_visible(False)
