"""Gates: figures of a release held against the limits of a recipe, each with its interval where it has one.

A figure is a number by name, whoever found it: the evaluation, the comparison with the champion, curation. So another
criterion is another figure, and a line of the recipe.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["disabled", "dry_run", "enabled"]
Otherwise = Literal["refuse", "warn"]


@dataclass(frozen=True)
class Figure:
    """A number, the ends of its 95 % interval where it has one, and what there is to know about it.

    Not-a-number is a figure that should be there and cannot be had; None one that does not apply. `note` says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Limits:
    """What a figure may be: at least `min`, at most `max`; and the lower end of its interval at least `low`."""

    min: float | None = None
    max: float | None = None
    low: float | None = None
    otherwise: Otherwise = "refuse"

    def __str__(self) -> str:
        """The limits in words, e.g. `>= 0.85`."""
        bounds = (("", ">=", self.min), ("", "<=", self.max), ("lower end ", ">=", self.low))
        return " and ".join(f"{what}{sign} {bound:g}" for what, sign, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Verdict:
    """One gate: a figure against its limits, all inclusive."""

    metric: str
    figure: Figure
    limits: Limits

    @property
    def applies(self) -> bool:
        """Whether there is anything to judge: nothing is compared with a champion where there is none."""
        return self.figure.value is not None

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limits; not-a-number never is."""
        value, limits = self.figure.value, self.limits
        if value is None:
            return True
        above = limits.min is None or value >= limits.min
        below = limits.max is None or value <= limits.max
        # What stands for the lower end of a figure without an interval (of a count, say) is the figure.
        end = value if self.figure.low is None else self.figure.low
        return above and below and (limits.low is None or end >= limits.low) and not math.isnan(value)

    @property
    def word(self) -> str:
        """`passed`, `warned`, `refused` or `not applicable`."""
        if not self.applies:
            return "not applicable"
        if self.passed:
            return "passed"
        return "refused" if self.limits.otherwise == "refuse" else "warned"

    @property
    def shown(self) -> str:
        """The figure in words, with its interval and its note."""
        value, low, high = self.figure.value, self.figure.low, self.figure.high
        words = [] if value is None or math.isnan(value) else [f"{value:.4g}"]
        if words and low is not None and high is not None:
            words.append(f"({low:.4g} to {high:.4g})")
        return " ".join([*words, *([self.figure.note] if self.figure.note else [])])

    def as_dict(self) -> dict[str, str | float | bool | None]:
        """The same as plain data: for a JSON file, a report, a tag."""
        figure, limits = self.figure, self.limits
        value = figure.value if figure.value is not None and math.isfinite(figure.value) else None
        bounds = {"min": limits.min, "max": limits.max, "least_low": limits.low}
        interval = {"low": figure.low, "high": figure.high, "p": figure.p}
        return {
            "metric": self.metric,
            "figure": value,
            **interval,
            **bounds,
            "note": figure.note,
            "limit": str(limits),
            "verdict": self.word,
        }


def judge(figures: Mapping[str, Figure], gates: Mapping[str, Limits]) -> list[Verdict]:
    """Hold each gate against the figure of its name.

    Raises:
        ValueError: when a gate names a figure that nobody found.
    """
    if absent := sorted(set(gates) - set(figures)):
        present = ", ".join(sorted(figures))
        raise ValueError(f"gates: there is no figure named {', '.join(absent)}; there are {present}")
    return [Verdict(name, figures[name], limits) for name, limits in gates.items()]


def refusals(verdicts: Sequence[Verdict]) -> list[str]:
    """Why a release is refused: a sentence for each gate that it fails."""
    return [_sentence(one) for one in verdicts if one.word == "refused"]


def warnings(verdicts: Sequence[Verdict]) -> list[str]:
    """What the release owner should know: a sentence for each gate that warns."""
    return [_sentence(one) for one in verdicts if one.word == "warned"]


def _sentence(one: Verdict) -> str:
    return f"{one.metric} is {one.shown or 'not a number'}, not {one.limits}"


def status(mode: Mode, verdicts: Sequence[Verdict]) -> str:
    """The outcome in a word: `passed`, `refused`, what a dry run would have refused, or that nothing was judged."""
    if mode == "disabled":
        return "not judged"
    if not refusals(verdicts):
        return "passed"
    return "refused" if mode == "enabled" else "would be refused"


def table(verdicts: Sequence[Verdict]) -> str:
    """The gates as a Markdown table with aligned columns, for a terminal and for a web page."""
    rows = [("gate", "figure", "limit", "verdict")]
    rows += [(one.metric, one.shown, str(one.limits), one.word) for one in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["".join(f"| {cell.ljust(width)} " for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "".join(f"|{'-' * (width + 2)}" for width in widths))
    return "\n".join(line + "|" for line in lines)
