"""The validation page says first what failed and on which rows, and shows any text as text."""

import copy
from typing import Any

import pytest

from stages.reporting.validation import MAX_CHARACTERS, as_text, render_validation

EVIL = '<script>alert("1")</script>'


def _expectation(name: str, column: str | None, **changes: Any) -> dict[str, Any]:
    row = {
        "expectation": name,
        "column": column,
        "kwargs": {},
        "success": True,
        "observed": None,
    }
    return row | {"unexpected_count": 0, "unexpected_share": 0.0, "examples": [], "exception": None} | changes


def _result() -> dict[str, Any]:
    good = _expectation("expect_column_values_to_not_be_null", "query")
    bad = _expectation(
        "expect_column_value_lengths_to_be_between",
        "query",
        kwargs={"min_value": 12},
        success=False,
        unexpected_count=1037,
        unexpected_share=0.25,
        examples=[EVIL, {"id": "w-1", "query": EVIL}, 3, None],
    )
    return {
        "created": "2026-03-01T12:00:00+00:00",
        "success": False,
        "suites": [
            {
                "source": "wikipedia",
                "kind": "pairs",
                "rows": 4148,
                "success": False,
                "expectations": [good, bad],
            },
            {"source": "services", "kind": "labelled", "rows": 900, "success": True, "expectations": [good]},
        ],
        "rejected": [
            {"source": "wikipedia", "reason": "too_short", "rows": 12, "examples": [EVIL]},
            {"source": "wikipedia", "reason": "duplicate", "rows": 1300, "examples": []},
        ],
        "splits": [
            {"source": "wikipedia", "train": 4000, "dev": 48, "test": 100, "read": 5460, "rejected": 1312},
            {"source": "services", "train": 700, "dev": 100, "test": 100, "read": 950, "rejected": 0},
        ],
        "overlaps": [
            {
                "source": "wikipedia", "rows": 100, "exact": 3, "near": 1, "inside": None, "entities": 2, "share": 0.04
            }
        ],
        "profiles": [
            {"source": "wikipedia", "rows": 4148, "words": {"query": 9.5}, "languages": {"": 4, "fr": 1, "en": 3}},
        ],
        "drift": [
            {
                "source": "wikipedia", "rows": 4148, "rows_before": 2074, "words": {"query": 9.5},
                "words_before": {"query": 8.0}, "lengths": 0.05, "languages": 0.01,
            }
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def html() -> str:
    return render_validation(_result())


def test_verdict_names_the_expectation_and_counts_its_rows(html: str) -> None:
    verdict = "1 of 3 expectations not met: wikipedia, query: column value lengths to be between (1,037 rows)."
    assert verdict in html
    assert html.index(verdict) < html.index('id="failures"') < html.index('id="suites"')
    assert "<strong>1,037 (25.0%)</strong> of 4,148 rows" in html


def test_texts_are_shown_as_text(html: str) -> None:
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;1&#34;)") == 3


def test_every_field_is_escaped() -> None:
    result = _result()
    result["suites"][0] |= {"source": EVIL, "kind": EVIL}
    result["suites"][0]["expectations"][1] |= {
        "expectation": EVIL,
        "column": EVIL,
        "kwargs": {EVIL: EVIL},
        "observed": {EVIL: [EVIL]},
        "exception": EVIL,
    }
    result["rejected"][0] |= {"source": EVIL, "reason": EVIL}
    for part in ("splits", "overlaps", "profiles", "drift"):
        result[part][0]["source"] = EVIL
    assert "<script" not in render_validation(result)


def test_only_the_suites_that_failed_are_unfolded(html: str) -> None:
    suites = html[html.index('id="suites"') : html.index('id="rejected"')]
    assert suites.count("<details open>") == 1
    assert suites.count("<details>") == 1
    assert suites.index("<details open>") < suites.index("wikipedia") < suites.index("<details>")


def test_rejected_rows_by_reason_and_rows_of_each_split(html: str) -> None:
    assert "1,312 rows were left out" in html
    assert html.index("Duplicate <span") < html.index("Too short <span")
    assert "No example was kept." in html
    assert '<td>5,460</td><td>1,312 <span class="unit">(24.0%)</span></td><td>0</td><td>4,000</td>' in html
    of_all = "<td>6,410</td><td>1,312</td><td>50</td><td>4,700</td><td>148</td><td>200</td><td>5,048</td>"
    assert f'<th scope="row">All sources</th>{of_all}' in html


def test_overlaps_languages_and_drift_are_shown(html: str) -> None:
    row = '<th scope="row">wikipedia</th>'
    assert f"{row}<td>100</td><td>3</td><td>1</td><td>4.0%</td><td>2</td>" in html
    assert "en 75.0%, fr 25.0%</td><td>0.1%</td>" in html, "identified in 4 rows of 4,148"
    result = _result()
    result["overlaps"][0]["inside"] = 7
    assert "<td>3</td><td>1</td><td>7</td><td>4.0%</td>" in render_validation(result)
    assert "query 8 → 9.5" in html
    drift = html[html.index('id="drift"') :]
    assert "<td>100.0%</td>" in drift and ">yes</td>" in drift


def test_labels_that_look_alike_are_a_warning(html: str) -> None:
    result = _result()
    result["profiles"][0]["similar_labels"] = [["Care", "care"], ["PARTS", "Parts"]]
    warned = render_validation(result)
    assert "wikipedia: <code>Care</code>, <code>care</code></li>" in warned
    assert "wikipedia: <code>PARTS</code>, <code>Parts</code></li>" in warned
    assert 'id="labels"' in warned and 'id="labels"' not in html


def test_a_first_version_has_nothing_to_drift_from() -> None:
    assert "No different version was accepted here before." in render_validation(_result() | {"drift": []})


def test_nothing_is_requested_from_outside(html: str) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert "src=" not in html


def test_passed() -> None:
    result = _result()
    result |= {"success": True, "rejected": []}
    result["suites"] = result["suites"][1:]
    html = render_validation(result)
    assert "900 rows of 1 source meet all of 1 expectation." in html
    assert 'id="failures"' not in html
    assert "No row was rejected." in html


def test_refused_though_every_expectation_holds() -> None:
    result = _result()
    result["suites"] = result["suites"][1:]
    assert "refused although every expectation holds" in render_validation(result)


def test_many_failures_are_counted_in_the_verdict() -> None:
    result = _result()
    result["suites"][0]["expectations"] = [result["suites"][0]["expectations"][1]] * 7
    assert "; and 2 more." in render_validation(result)


def test_an_expectation_that_could_not_be_checked() -> None:
    result = _result()
    result["suites"][0]["expectations"][1] |= {
        "exception": "KeyError: query",
        "unexpected_count": None,
        "unexpected_share": None,
        "examples": [],
        "observed": 0,
    }
    html = render_validation(result)
    assert "column value lengths to be between (not checked)" in html
    assert "KeyError: query" in html
    assert ">None<" not in html


def test_the_input_is_not_changed() -> None:
    result = _result()
    before = copy.deepcopy(result)
    assert render_validation(result) == render_validation(result)
    assert result == before


def test_long_examples_are_cut_and_rows_keep_their_columns() -> None:
    assert as_text("x" * 1000) == "x" * MAX_CHARACTERS + "… (1,000 characters)"
    assert as_text({"id": 1, "text": "é"}) == "id: 1\ntext: é"
    assert as_text(["é", None]) == '["é", null]'
