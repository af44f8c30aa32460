"""Each kind of limit in both directions, and what is said about it."""

import math

import pytest

from stages.evaluation.gates import Figure, Verdict, judge, refusals, status, table, warnings
from stages.recipe.promote import Gate

NAN = math.nan


@pytest.mark.parametrize(
    ("figure", "gate", "word"),
    [
        (Figure(0.9), Gate(min=0.9), "passed"),
        (Figure(0.8999), Gate(min=0.9), "refused"),
        (Figure(0.0), Gate(max=0), "passed"),
        (Figure(1.0), Gate(max=0), "refused"),
        (Figure(0.5), Gate(min=0.4, max=0.6), "passed"),
        (Figure(0.7), Gate(min=0.4, max=0.6), "refused"),
        (Figure(0.02, -0.009, 0.05), Gate(low=-0.01), "passed"),
        (Figure(0.02, -0.011, 0.05), Gate(low=-0.01), "refused"),
        (Figure(0.0, 0.0, 0.0), Gate(low=-0.01), "passed"),
        (Figure(0.02), Gate(low=0.01), "passed"),
        (Figure(0.8), Gate(min=0.9, otherwise="warn"), "warned"),
        (Figure(NAN, note="not comparable"), Gate(low=-1), "refused"),
        (Figure(NAN), Gate(max=1), "refused"),
        (Figure(0.1, NAN, NAN), Gate(low=-1), "refused"),
        (Figure(math.inf), Gate(min=0.9), "refused"),
        (Figure(None, note="no champion yet"), Gate(low=-0.01), "not applicable"),
    ],
)
def test_a_limit_in_both_directions(figure: Figure, gate: Gate, word: str) -> None:
    assert Verdict("m", figure, gate).word == word


def test_reasons_and_warnings_are_sentences() -> None:
    verdicts = [
        Verdict("over", Figure(0.02, -0.03, 0.05), Gate(min=0.0, low=-0.01)),
        Verdict("gone", Figure(NAN, note="the champion cannot be read"), Gate(low=-0.01)),
        Verdict("empty", Figure(NAN), Gate(max=1)),
        Verdict("index", Figure(0.5), Gate(min=0.9, otherwise="warn")),
    ]
    assert refusals(verdicts) == [
        "over is 0.02 (-0.03 to 0.05), not >= 0 and lower end >= -0.01",
        "gone is the champion cannot be read, not lower end >= -0.01",
        "empty is undefined, not <= 1",
    ]
    assert warnings(verdicts) == ["index is 0.5, not >= 0.9"]
    assert verdicts[1].as_dict()["figure"] is None
    assert verdicts[0].as_dict()["least_low"] == -0.01
    wide = Verdict("wide", Figure(0.5, NAN, 0.6, NAN), Gate(low=0.1))
    assert wide.sentence == "wide is 0.5 (undefined to 0.6), not lower end >= 0.1"
    assert [wide.as_dict()[name] for name in ("figure", "low", "high", "p")] == [0.5, None, 0.6, None]


def test_a_gate_without_a_figure_is_an_error() -> None:
    with pytest.raises(ValueError, match="no figure named nosuch; there are a, b"):
        judge({"a": Figure(1), "b": Figure(2)}, {"a": Gate(min=0), "nosuch": Gate(min=0)})


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("disabled", 0.0, "not judged"),
        ("dry_run", 0.0, "would be refused"),
        ("dry_run", 1.0, "passed"),
        ("enabled", 0.0, "refused"),
        ("enabled", 1.0, "passed"),
    ],
)
def test_the_mode_decides_what_a_failed_gate_means(mode: str, value: float, expected: str) -> None:
    assert status(mode, [Verdict("m", Figure(value), Gate(min=0.5))]) == expected


def test_the_table_is_aligned_markdown() -> None:
    verdicts = [Verdict("long_name", Figure(0.9, 0.8, 0.95), Gate(min=0.85)), Verdict("b", Figure(2), Gate(max=1))]
    lines = table(verdicts).splitlines()
    assert lines[2] == "| long_name | 0.9 (0.8 to 0.95) | >= 0.85 | passed  |"
    assert lines[3] == "| b         | 2                 | <= 1    | refused |"
    assert len({len(line) for line in lines}) == 1
