"""Training curves of the report: a panel for each phase, with its loss terms and its score on the development split."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from stages.reporting.figures import DASHES, PANEL_WIDTH, Points, coordinates, finish, legend
from stages.reporting.number_format import is_known, words
from stages.reporting.svg import INK, SERIES, STYLE, canvas, to_svg

FEW_POINTS = 20  # a line of at most so many points gets a marker for each
MAX_POINTS = 160  # of a line: half of the panel's pixels
PHASES = {"distill": "Stage 1: distillation", "extend": "Stage 1: longer texts", "adapt": "Adapter"}
TOTAL, DEV = "loss", "dev"
LOG_RATIO = 30.0  # loss terms further apart than this cannot be told apart on a linear axis
# Columns of a training log beside its loss terms and development scores.
NOT_LOSSES = {"step", "learning_rate", "gradient_norm"}

Rows = Sequence[Mapping[str, Any]]


class Curve(NamedTuple):
    """A column of a training log as (step, value) points in order."""

    name: str
    points: Points


def loss_terms(phases: Iterable[Rows]) -> list[str]:
    """Names of all loss terms, sorted: with this order, a term has the same colour in every phase."""
    keys = {key for rows in phases for row in rows for key in row} - NOT_LOSSES - {TOTAL}
    return sorted(key for key in keys if not key.startswith(DEV))


def training_figure(phase: str, rows: Rows, terms: Sequence[str] = ()) -> Markup:
    """Draw one training phase: its loss terms above, its development score below.

    Args:
        phase: name of the phase, such as `distill` or `adapt@retrieval`.
        rows: a mapping for each logged step, with `step` and any of the loss terms and `dev*` scores.
        terms: `loss_terms` of all phases on the page; those of this phase where none are given.
    """
    losses, scores = _curves(rows)
    terms = terms or loss_terms([rows])
    with matplotlib.rc_context(STYLE):
        figure = canvas(PANEL_WIDTH, 320 if scores else 220)
        heights = [3, 2] if scores else [1]
        axes = list(figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights).flat)
        _draw(axes[0], losses, terms)
        legend(axes[0], columns=2)
        axes[0].set_ylabel(_scale_losses(axes[0], losses))
        if scores:
            _draw(axes[1], scores, [curve.name for curve in scores])
            axes[1].set_ylabel(dev_label(scores[0].name) if len(scores) == 1 else "dev score")
            if len(scores) > 1:
                legend(axes[1], columns=2)
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(4, integer=True))
        finish(figure, phase_title(phase))
    last = ", ".join(f"{words(curve.name)} {curve.points[-1][1]:.4g}" for curve in losses + scores)
    key = "training-" + "".join(letter if letter.isalnum() else "-" for letter in phase)
    description = f"Last values: {last}" if last else "Nothing was logged"
    return to_svg(figure, key, f"Training curves of {phase_title(phase)}", description, {})


def phase_title(phase: str) -> str:
    """Name a phase for people: `adapt@retrieval` is `Adapter: retrieval`."""
    name, _, task = phase.partition("@")
    title = PHASES.get(name, words(name))
    return f"{title}: {words(task).lower()}" if task else title


def dev_label(column: str) -> str:
    """Name a score on the development split: `dev_ndcg_at_10` is `dev nDCG@10`."""
    name = column.removeprefix(DEV).removeprefix("_")
    return f"dev {words(name)}" if name else "dev score"


def last_dev_scores(rows: Rows) -> list[tuple[str, float]]:
    """Name and last value of each score on the development split."""
    return [(dev_label(curve.name), curve.points[-1][1]) for curve in _curves(rows)[1]]


def _curves(rows: Rows) -> tuple[list[Curve], list[Curve]]:
    """Sort the logged columns into loss terms (the total first) and development scores."""
    keys = sorted({key for row in rows for key in row} - NOT_LOSSES, key=lambda key: (key != TOTAL, key))
    curves = [Curve(key, thin(series(rows, key))) for key in keys]
    drawn = [curve for curve in curves if curve.points]
    losses = [curve for curve in drawn if not curve.name.startswith(DEV)]
    if len(losses) == 2 and losses[0].points == losses[1].points:
        del losses[0]  # a single term of weight one is its own total
    return losses, [curve for curve in drawn if curve.name.startswith(DEV)]


def series(rows: Rows, key: str) -> Points:
    """The (step, value) points of one column, in order of step; rows without it are left out."""
    return sorted((float(row["step"]), float(row[key])) for row in rows if is_known(row.get(key)))


def thin(line: Points, limit: int = MAX_POINTS) -> Points:
    """Average neighbouring points until at most `limit` are left."""
    size = -(-len(line) // limit)
    groups = [line[start : start + size] for start in range(0, len(line), size or 1)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


def _draw(axes: Axes, curves: Sequence[Curve], order: Sequence[str]) -> None:
    """Draw the curves of a panel: the total in ink, each other curve in the colour and dash of its place in `order`."""
    for curve in curves:
        is_total = curve.name == TOTAL
        place = 0 if is_total else order.index(curve.name)
        axes.plot(
            *coordinates(curve.points),
            color=INK if is_total else SERIES[place % len(SERIES)],
            linestyle=DASHES[(place + place // len(SERIES)) % len(DASHES)],
            linewidth=1.5,
            marker="o" if len(curve.points) <= FEW_POINTS else None,
            markersize=3,
            label="Total" if is_total else words(curve.name),
        )


def _scale_losses(axes: Axes, losses: Sequence[Curve]) -> str:
    """Draw losses that are far apart on a log axis; return the axis label."""
    values = [value for curve in losses for _, value in curve.points]
    if not values or min(values) <= 0 or max(values) / min(values) < LOG_RATIO:
        return "loss"
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    return "loss (log scale)"
