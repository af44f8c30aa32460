"""Long documents in the report: tables and charts over length."""

import re
from xml.etree import ElementTree

import pytest

from stages.reporting import svg
from stages.reporting.long_document_charts import long_tasks

LONG = {
    "articles": {"before": {"10000": {"512": 0.9}}},
    "needle": {
        "before": {"10000": {"512": 0.1, "1024": 0.1, "2048": 0.05}},
        "after": {"40000": {"512": 0.5}, "10000": {"512": 0.4, "1024": 0.3, "2048": 0.2}},
    },
    "passkey": {},
}


def test_measured_tasks_come_in_order_with_a_line_for_each_student_and_theta() -> None:
    needle, articles = long_tasks(LONG)
    assert (needle.title, needle.metric, articles.title, articles.metric) == (
        "Needles",
        "nDCG@1",
        "Articles",
        "nDCG@10",
    )
    assert needle.lengths == [512, 1024, 2048]
    assert [line.label for line in needle.lines] == [
        "Before, theta 10,000",
        "After, theta 40,000",
        "After, theta 10,000",
    ]
    assert [(line.model, line.theta) for line in needle.lines] == [(0, 0), (1, 1), (1, 0)]
    assert needle.lines[2].by_length == {512: 0.4, 1024: 0.3, 2048: 0.2}
    assert long_tasks({}) == []


def test_the_chart_draws_every_figure_at_its_place_in_the_pages_colours() -> None:
    figure = str(long_tasks(LONG)[0].figure)
    root = ElementTree.fromstring(figure)
    marks = {}
    for group in (one for one in root.iter() if one.tag.endswith("}g")):
        tip, mark = group.find("{*}title"), group.find(".//{*}use")
        if tip is not None and mark is not None:
            marks[tip.text] = (float(mark.attrib["x"]), float(mark.attrib["y"]))
    assert len(marks) == 7
    x, y = (
        [marks[f"After, theta 10,000, {length} tokens: {value}"][axis] for length, value in
         (("512", "40.0"), ("1,024", "30.0"), ("2,048", "20.0"))]
        for axis in (0, 1)
    )  # fmt: skip
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.3)
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.3)
    assert y[0] < y[2]
    assert root.attrib["aria-label"].startswith("Needles by length of the documents. Before, theta 10,000, 512 tokens")
    assert ">tokens of a document (log scale)</text>" in figure
    bare = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", figure)
    assert not any(colour in bare for colour in svg.VARIABLES)
