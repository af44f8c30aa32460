"""Gates: figures of an evaluation held against the limits of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Verdict:
    """One gate: a figure against its limits, both inclusive. Not-a-number passes no gate."""

    metric: str
    figure: float
    min: float | None
    max: float | None

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limits."""
        above = self.min is None or self.figure >= self.min
        below = self.max is None or self.figure <= self.max
        return above and below and self.figure == self.figure

    @property
    def limit(self) -> str:
        """The limits in words, e.g. `>= 0.85`."""
        bounds = {">=": self.min, "<=": self.max}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)

    @property
    def word(self) -> str:
        """`passed` or `refused`."""
        return "passed" if self.passed else "refused"


def judge(summary: Mapping[str, float], gates: Mapping[str, Limits]) -> list[Verdict]:
    """Hold each gate against the figure of its name.

    Args:
        summary: figures by name.
        gates: least and most by name of figure; None for no limit.

    Raises:
        ValueError: when a gate names a figure that the evaluation does not have.
    """
    if absent := sorted(set(gates) - set(summary)):
        present = ", ".join(sorted(summary))
        raise ValueError(f"gates: the evaluation has no figure named {', '.join(absent)}; it has {present}")
    return [Verdict(name, float(summary[name]), *limits) for name, limits in gates.items()]


def refusals(verdicts: Sequence[Verdict]) -> list[str]:
    """Why a release is refused: a sentence for each gate that it fails."""
    return [f"{one.metric} is {one.figure:.4g}, not {one.limit}" for one in verdicts if not one.passed]


def table(verdicts: Sequence[Verdict]) -> str:
    """The gates as a Markdown table with aligned columns, for a terminal and for a web page."""
    rows = [("gate", "figure", "limit", "verdict")]
    rows += [(one.metric, f"{one.figure:.4f}", one.limit, one.word) for one in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["".join(f"| {cell.ljust(width)} " for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "".join(f"|{'-' * (width + 2)}" for width in widths))
    return "\n".join(line + "|" for line in lines)
