"""Gates: the figures of a release are judged here, each against the limits that section `promote` sets for it.

A figure is a number with a name, from the evaluation, the comparison with the champion or curation. A new criterion is
a new figure and a line of the recipe.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from stages.recipe.promote import Gate


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval and its p-value `p`, where it has them, and a note that explains it.

    NaN stands for a figure or an end of its interval that is undefined or could not be computed, None for one that does
    not apply; `note` says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """A figure judged by its gate, all limits inclusive."""

    name: str
    figure: Figure
    gate: Gate

    @property
    def applies(self) -> bool:
        """Whether there is a figure to judge: nothing is compared with a champion where there is none."""
        return self.figure.value is not None

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limits; what is not finite never is."""
        value, gate = self.figure.value, self.gate
        if value is None:
            return True
        above = gate.min is None or value >= gate.min
        below = gate.max is None or value <= gate.max
        # A figure without an interval, such as a count, is its own lower end.
        lower_end = value if self.figure.low is None else self.figure.low
        return above and below and (gate.low is None or lower_end >= gate.low) and math.isfinite(value)

    @property
    def word(self) -> str:
        """The verdict: `passed`, `warned`, `refused` or `not applicable`."""
        if not self.applies:
            return "not applicable"
        if self.passed:
            return "passed"
        return "refused" if self.gate.otherwise == "refuse" else "warned"

    @property
    def limit(self) -> str:
        """The gate's limits in words, e.g. `>= 0.85`."""
        bounds = ((">=", self.gate.min), ("<=", self.gate.max), ("lower end >=", self.gate.low))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    @property
    def shown(self) -> str:
        """The figure in words, with its interval and its note."""
        value, low, high = self.figure.value, self.figure.low, self.figure.high
        words = [] if value is None or math.isnan(value) else [f"{value:.4g}"]
        if words and low is not None and high is not None:
            ends = ("undefined" if math.isnan(end) else f"{end:.4g}" for end in (low, high))
            words.append(f"({' to '.join(ends)})")
        return " ".join([*words, *([self.figure.note] if self.figure.note else [])])

    @property
    def sentence(self) -> str:
        """The reason for a refusal or a warning."""
        return f"{self.name} is {self.shown or 'undefined'}, not {self.limit}"

    def as_dict(self) -> dict[str, str | float | bool | None]:
        """Give the verdict as plain data for a JSON file, a report or a tag."""
        figure = asdict(self.figure)
        numbers = {"figure": figure["value"], **{name: figure[name] for name in ("low", "high", "p")}}
        return {
            "metric": self.name,
            **{name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()},
            "min": self.gate.min,
            "max": self.gate.max,
            "least_low": self.gate.low,
            "note": self.figure.note,
            "limit": self.limit,
            "verdict": self.word,
        }


def judge(figures: Mapping[str, Figure], gates: Mapping[str, Gate]) -> list[Verdict]:
    """Pair each gate with its figure.

    >>> judge({"recall": Figure(0.9)}, {"recall": Gate(min=0.95)})[0].word
    'refused'

    Raises:
        ValueError: a gate has no figure.
    """
    if absent := sorted(set(gates) - set(figures)):
        present = ", ".join(sorted(figures))
        raise ValueError(f"gates: there is no figure named {', '.join(absent)}; there are {present}")
    return [Verdict(name, figures[name], gate) for name, gate in gates.items()]


def refusals(verdicts: Sequence[Verdict]) -> list[str]:
    """Say why a release is refused, a sentence for each gate that it fails."""
    return [verdict.sentence for verdict in verdicts if verdict.word == "refused"]


def warnings(verdicts: Sequence[Verdict]) -> list[str]:
    """Say what the release owner should know, a sentence for each gate that warns."""
    return [verdict.sentence for verdict in verdicts if verdict.word == "warned"]


def status(mode: str, verdicts: Sequence[Verdict]) -> str:
    """Sum up the verdicts in the recipe's mode: `passed`, `refused`, `would be refused` (dry run) or `not judged`."""
    if mode == "disabled":
        return "not judged"
    if not refusals(verdicts):
        return "passed"
    return "refused" if mode == "enabled" else "would be refused"


def table(verdicts: Sequence[Verdict]) -> str:
    """Format the verdicts as a Markdown table with aligned columns, for a terminal and for a web page."""
    rows = [("gate", "figure", "limit", "verdict")]
    rows += [(verdict.name, verdict.shown, verdict.limit, verdict.word) for verdict in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["".join(f"| {cell.ljust(width)} " for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "".join(f"|{'-' * (width + 2)}" for width in widths))
    return "\n".join(line + "|" for line in lines)
