"""Long documents in the report: tables and charts over length."""

import re
from xml.etree import ElementTree

import pytest

from stages.reporting import svg
from stages.reporting.long_document_charts import length_charts
from tests.reporting.marked_points import marked_points

LONG = {
    "articles": {"before": {"10000": {"512": 0.9}}},
    "needle": {
        "before": {"10000": {"512": 0.1, "1024": 0.1, "2048": 0.05}},
        "after": {"40000": {"512": 0.5}, "10000": {"512": 0.4, "1024": 0.3, "2048": 0.2}},
    },
    "passkey": {},
}


def test_measured_tasks_come_in_order_with_a_line_for_each_student_and_theta() -> None:
    needle, articles = length_charts(LONG)
    assert (needle.title, needle.metric, articles.title, articles.metric) == (
        "Needles",
        "nDCG@1",
        "Articles",
        "nDCG@10",
    )
    assert needle.lengths == [512, 1024, 2048]
    assert [line.label for line in needle.lines] == [
        "Before, \u03b8 10,000",
        "After, \u03b8 40,000",
        "After, \u03b8 10,000",
    ]
    before, after, after_at_the_same_theta = (line.look for line in needle.lines)
    assert before["color"] != after["color"] == after_at_the_same_theta["color"]
    assert before["linestyle"] == after_at_the_same_theta["linestyle"] != after["linestyle"]
    assert needle.lines[2].by_length == {512: 0.4, 1024: 0.3, 2048: 0.2}
    assert length_charts({}) == []


def test_the_chart_draws_every_figure_at_its_place_in_the_pages_colours() -> None:
    figure = str(length_charts(LONG)[0].figure)
    marks = marked_points(figure)
    assert len(marks) == 7
    x, y = (
        [marks[f"After, \u03b8 10,000, {length} tokens: {value}"][axis] for length, value in
         (("512", "40.0"), ("1,024", "30.0"), ("2,048", "20.0"))]
        for axis in (0, 1)
    )  # fmt: skip
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.3)
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.3)
    assert y[0] < y[2]
    assert (
        ElementTree.fromstring(figure)
        .attrib["aria-label"]
        .startswith("Needles by length of the documents. Before, \u03b8 10,000, 512 tokens")
    )
    assert ">tokens of a document (log scale)</text>" in figure
    bare = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", figure)
    assert not any(colour in bare for colour in svg.VARIABLES)
