"""The gates of a release in words: the verdict over all of them, each one, and what changed since the champion."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.reporting import number_format as formats

Verdict = Mapping[str, Any]  # of `stages.metrics.gates`: metric, figure, low, high, min, max, least_low, note, verdict
MARKS = {"passed": "passed", "refused": "failed", "warned": "warned", "not applicable": "none"}
# In the order in which they are shown.
WORDS = {"refused": "fail", "warned": "warning", "passed": "pass", "not applicable": "not applicable"}
BESIDE = "_over_champion"


class Gate(NamedTuple):
    """A gate of the recipe in words; `mark` is passed, failed, warned or none."""

    label: str
    value: str
    interval: str
    limit: str
    note: str
    mark: str
    word: str


class Change(NamedTuple):
    """A task's figure minus the champion's."""

    label: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    verdict: str


def gates(verdicts: Sequence[Verdict]) -> list[Gate]:
    """The gates in words: what was refused first, then what was warned of, what does not apply last."""
    order = list(WORDS.values())
    return sorted(map(gate, verdicts), key=lambda one: order.index(one.word))


def tally(gates: Sequence[Gate]) -> str:
    """How many gates say what: `1 fail, 4 pass`."""
    return ", ".join(f"{number} {word}" for word, number in Counter(one.word for one in gates).items())


def gate(one: Verdict) -> Gate:
    """Put a gate in words, with as many decimals as it takes to see a narrow miss."""
    name, value, word = one["metric"], one.get("figure"), one["verdict"]
    bounds = [one.get(bound) for bound in ("min", "max", "least_low")]
    known = [bound for bound in bounds if bound is not None]
    decimals = 1
    if word in ("refused", "warned"):  # 79.96% against 80.00%, not 80.0% against 80.0%
        held = [value, one.get("low")]
        while decimals < 4 and any(shown(name, v, decimals) == shown(name, b, decimals) for b in known for v in held):
            decimals += 1
    ends = [one.get("low"), one.get("high")]
    interval = " to ".join(shown(name, end, decimals) for end in ends) if None not in ends else ""
    value_text = "" if word == "not applicable" else shown(name, value, decimals)
    note = str(one.get("note") or "")
    return Gate(formats.words(name), value_text, interval, limit(one, decimals), note, MARKS[word], WORDS[word])


def shown(name: str, value: float | None, decimals: int) -> str:
    """A figure in words."""
    return formats.figure(name, value, decimals) if formats.is_known(value) else "not measured"


def limit(one: Verdict, decimals: int) -> str:
    """The limit in words: at least, at most, the interval from, or several."""
    sides = (("at least", one.get("min")), ("at most", one.get("max")), ("interval from", one.get("least_low")))
    parts = [f"{word} {shown(one['metric'], bound, decimals)}" for word, bound in sides if bound is not None]
    return " and ".join(parts)


def verdict(gates: Sequence[Gate], mode: str | None) -> dict[str, Any]:
    """The first sentence of the report.

    Args:
        mode: of the gates; None where nothing has judged them yet.
    """
    if mode is None:
        return {"state": "none", "title": "Not judged yet", "text": "promote judges it: see data/promoted/report.html."}
    if mode == "disabled" or not gates:
        return {"state": "none", "title": "No verdict", "text": "The recipe judges nothing."}
    failed, warned = ([one for one in gates if one.mark == mark] for mark in ("failed", "warned"))
    warnings = f" Warned of: {_reasons(warned)}." if warned else ""
    if not failed:
        text = f"No gate of the recipe refuses it ({len(gates)}).{warnings}"
        return {"state": "passed", "title": "Passed", "text": text}
    dry = " This is a dry run, which refuses nothing." if mode == "dry_run" else ""
    text = f"{len(failed)} of {len(gates)} gates: {_reasons(failed)}.{warnings}{dry}"
    return {"state": "failed", "title": "Refused" if mode == "enabled" else "Would be refused", "text": text}


def _reasons(gates: Sequence[Gate]) -> str:
    return "; ".join(
        f"{one.label} is {one.value}{f' ({one.interval})' if one.interval else ''}"
        f"{f' ({one.note})' if one.note else ''}, limit {one.limit}"
        for one in gates
    )


def changes(gates: Sequence[Verdict]) -> list[Change]:
    """What each task gained or lost against the champion, where it was compared."""
    return [
        Change(
            formats.words(str(one["metric"]).removesuffix(BESIDE)),
            one["figure"],
            one["low"],
            one["high"],
            one["p"],
            difference_verdict(one["figure"], one["low"], one["high"]),
        )
        for one in gates
        if str(one["metric"]).endswith(BESIDE) and formats.is_known(one["figure"])
    ]


def difference_verdict(difference: float | None, low: float | None, high: float | None) -> str:
    """Say in words what an interval allows one to say."""
    if difference is None:
        return "not measured"
    if low is None or high is None:
        return f"{'higher' if difference > 0 else 'not higher'}, no interval"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no clear difference"
