"""The gates of a release in words: the verdict over all of them, and each gate with its figure and limit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, Self

from stages.reporting import number_format

GateVerdict = Mapping[str, Any]  # plain data of `stages.evaluation.gates.Verdict`
# Verdict of a gate -> its mark on the page and its word, in the order in which gates are shown.
MARKS = {
    "refused": ("failed", "fail"),
    "warned": ("warned", "warning"),
    "passed": ("passed", "pass"),
    "not applicable": ("none", "not applicable"),
}
OVER_CHAMPION = "_over_champion"


class IntervalEstimate(NamedTuple):
    """A figure with the ends of its 95% interval and its p value, each where known."""

    figure: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Take the fields from a row of the metrics."""
        return cls(*(row.get(name) for name in cls._fields))

    @property
    def verdict(self) -> str:
        """Say in words what the interval of a difference shows."""
        if self.figure is None:
            return "not measured"
        if self.low is None or self.high is None:
            return f"{'higher' if self.figure > 0 else 'not higher'}, no interval"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no clear difference"


class GateRow(NamedTuple):
    """A gate in words; `mark` is passed, failed, warned or none."""

    label: str
    value: str
    interval: str
    limit: str
    note: str
    mark: str
    word: str

    @property
    def reason(self) -> str:
        """Why the gate does not pass."""
        details = [f" (95% interval {self.interval})" if self.interval else "", f" ({self.note})" if self.note else ""]
        return f"{self.label} is {self.value}{''.join(details)}, required: {self.limit}"


def gate_rows(verdicts: Sequence[GateVerdict]) -> list[GateRow]:
    """Put all gates in words: failures first, then warnings, passed gates, and gates that do not apply."""
    order = list(MARKS)
    return [_gate_row(verdict) for verdict in sorted(verdicts, key=lambda verdict: order.index(verdict["verdict"]))]


def _gate_row(gate: GateVerdict) -> GateRow:
    name, verdict, estimate = gate["metric"], gate["verdict"], IntervalEstimate.of(gate)
    bounds = {"at least": gate.get("min"), "at most": gate.get("max"), "low end at least": gate.get("least_low")}
    bounds = {word: bound for word, bound in bounds.items() if bound is not None}
    decimals = 1
    if verdict in ("refused", "warned"):  # write 79.96% against 80.00%, not 80.0% against 80.0%
        pairs = list(product((estimate.figure, estimate.low), bounds.values()))
        while decimals < 4 and any(_shown(name, one, decimals) == _shown(name, two, decimals) for one, two in pairs):
            decimals += 1
    interval = [_shown(name, end, decimals) for end in (estimate.low, estimate.high) if end is not None]
    return GateRow(
        label=number_format.words(name),
        value="" if verdict == "not applicable" else _shown(name, estimate.figure, decimals),
        interval=" to ".join(interval).replace(" points to", " to"),
        limit=" and ".join(f"{word} {_shown(name, bound, decimals)}" for word, bound in bounds.items()),
        note=str(gate.get("note") or ""),
        mark=MARKS[verdict][0],
        word=MARKS[verdict][1],
    )


def _shown(name: str, value: float | None, decimals: int) -> str:
    return number_format.figure(name, value, decimals) if number_format.is_known(value) else "undefined"


def tally(gates: Sequence[GateRow]) -> str:
    """Count the gates by their word: `1 fail, 4 pass`."""
    return ", ".join(f"{number} {word}" for word, number in Counter(gate.word for gate in gates).items())


def verdict(gates: Sequence[GateRow], mode: str | None) -> dict[str, str]:
    """Title and first sentences of the report.

    Args:
        mode: mode of the gates; None where nothing has judged the release yet.
    """
    if mode is None:
        text = "The promote stage judges this release and writes data/promoted/report.html."
        return {"state": "none", "title": "Not judged yet.", "text": text}
    if mode == "disabled" or not gates:
        return {"state": "none", "title": "No verdict.", "text": "The recipe sets no gates, or disables them."}
    failed, warned = ("; ".join(gate.reason for gate in gates if gate.mark == mark) for mark in ("failed", "warned"))
    warnings = f" Warning: {warned}." if warned else ""
    if not failed:
        text = f"No gate of the recipe refuses this release ({tally(gates)}).{warnings}"
        return {"state": "passed", "title": "Passed.", "text": text}
    dry_run = " The gates are in a dry run, so nothing is refused." if mode == "dry_run" else ""
    num_failed = sum(gate.mark == "failed" for gate in gates)
    title = "Refused" if mode == "enabled" else "Would be refused"
    text = f"{failed}.{warnings}{dry_run}"
    return {"state": "failed", "title": f"{title} by {num_failed} of {len(gates)} gates.", "text": text}


def changes(gates: Sequence[GateVerdict]) -> list[tuple[str, IntervalEstimate]]:
    """Each task and its score minus the champion's, where they were compared."""
    return [
        (number_format.words(gate["metric"].removesuffix(OVER_CHAMPION)), IntervalEstimate.of(gate))
        for gate in gates
        if gate["metric"].endswith(OVER_CHAMPION) and number_format.is_known(gate["figure"])
    ]
