"""The suite of each kind: good rows pass, and each fault is found by the expectation that is there for it."""

import itertools
from typing import Any

import pytest

from stages.corpus.expectations import MAX_EXAMPLES, MAX_LABELS, Validator

Row = dict[str, Any]
NUMBERS = itertools.count()
WORDS: dict[str, dict[str, tuple[int, int]]] = {
    "pairs": {"query": (1, 5), "document": (2, 9)},
    "scored": {"text_a": (1, 3), "text_b": (1, 3)},
    "labelled": {"text": (1, 9)},
    "documents": {"text": (1, 9)},
}


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator()


def good(kind: str, number: int = 40) -> list[Row]:
    texts: dict[str, Any] = {
        "pairs": lambda n: {"query": f"query {n}", "document": f"a document {n}"},
        "scored": lambda n: {"text_a": f"left {n}", "text_b": f"right {n}", "score": (n % 10) / 10},
        "labelled": lambda n: {"text": f"text {n}", "label": "abc"[n % 3]},
        "documents": lambda n: {"text": f"text {n}"},
    }
    origin = {"source": "wiki", "language": "en", "license": "MIT"}
    return [{"id": f"wiki/{n}", "entity": f"e{n}", **origin, **texts[kind](n)} for n in range(number)]


def check(validator: Validator, kind: str, rows: list[Row]) -> dict[str, Any]:
    return validator.validate(f"source-{next(NUMBERS)}", kind, rows, WORDS[kind], "en")


def failed(result: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(one["expectation"], one["column"]) for one in result["expectations"] if not one["success"]}


@pytest.mark.parametrize("kind", WORDS)
def test_good_rows_pass(validator: Validator, kind: str) -> None:
    result = check(validator, kind, good(kind))
    assert failed(result) == set()
    assert result["success"] is True
    assert (result["source"][:7], result["kind"], result["rows"]) == ("source-", kind, 40)
    assert len(result["expectations"]) > 8
    assert all(one["exception"] is None for one in result["expectations"])


NULL, BETWEEN, UNIQUE = (
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_unique",
)
FAULTS: list[tuple[str, Row, str, str | None]] = [
    ("pairs", {"id": None}, NULL, "id"),
    ("pairs", {"id": "wiki/1"}, UNIQUE, "id"),
    ("pairs", {"entity": None}, NULL, "entity"),
    ("pairs", {"license": None}, NULL, "license"),
    ("pairs", {"language": "de"}, "expect_column_values_to_be_in_set", "language"),
    ("pairs", {"query": "a b c d e f"}, BETWEEN, "query_words"),
    ("pairs", {"document": "one"}, BETWEEN, "document_words"),
    ("pairs", {"query": "bell \x07"}, "expect_column_values_to_not_match_regex", "query"),
    ("pairs", {"query": "query 1"}, UNIQUE, "query"),
    ("pairs", {"document": "a document 1"}, UNIQUE, "document"),
    (
        "pairs",
        {"query": "same text", "document": "same text"},
        "expect_column_pair_values_a_to_be_greater_than_b",
        None,
    ),
    ("scored", {"score": 1.01}, BETWEEN, "score"),
    ("scored", {"score": -0.5}, BETWEEN, "score"),
    ("scored", {"score": None}, NULL, "score"),
    ("scored", {"text_b": None}, NULL, "text_b"),
    ("labelled", {"label": None}, NULL, "label"),
    ("labelled", {"text": "a " * 10}, BETWEEN, "text_words"),
    ("documents", {"text": "text 1"}, UNIQUE, "text"),
    ("documents", {"text": "a " * 10}, BETWEEN, "text_words"),
]


@pytest.mark.parametrize(
    ("kind", "change", "expectation", "column"),
    FAULTS,
    ids=[f"{one[0]}-{sorted(one[1])[0]}-{one[2][7:]}" for one in FAULTS],
)
def test_a_fault_fails_the_expectation_that_is_there_for_it(
    validator: Validator, kind: str, change: Row, expectation: str, column: str | None
) -> None:
    rows = good(kind)
    rows[7] |= change
    result = check(validator, kind, rows)
    assert result["success"] is False
    assert (expectation, column) in failed(result)
    outcome = next(
        one for one in result["expectations"] if (one["expectation"], one["column"]) == (expectation, column)
    )
    assert outcome["exception"] is None
    assert outcome["unexpected_count"] in (1, 2), "the row, or the two that are the same"
    assert 0 < outcome["unexpected_share"] < 0.1
    if expectation != NULL:
        assert outcome["examples"]


def test_scores_scaled_twice_are_refused(validator: Validator) -> None:
    rows = [row | {"score": row["score"] / 10} for row in good("scored")]
    assert failed(check(validator, "scored", rows)) == {("expect_column_stdev_to_be_between", "score")}


def test_scores_of_two_values_are_refused(validator: Validator) -> None:
    rows = [row | {"score": float(row["score"] > 0.5)} for row in good("scored")]
    assert failed(check(validator, "scored", rows)) == {("expect_column_unique_value_count_to_be_between", "score")}


@pytest.mark.parametrize("number", [1, MAX_LABELS + 1])
def test_one_label_or_a_label_a_text_is_refused(validator: Validator, number: int) -> None:
    rows = [row | {"label": f"label {n % number}"} for n, row in enumerate(good("labelled", MAX_LABELS + 1))]
    assert failed(check(validator, "labelled", rows)) == {("expect_column_unique_value_count_to_be_between", "label")}


def test_many_faults_give_few_examples_and_the_full_count(validator: Validator) -> None:
    rows = [row | {"score": 7.0 + n} for n, row in enumerate(good("scored", 400))]
    result = check(validator, "scored", rows)
    outcome = next(one for one in result["expectations"] if one["column"] == "score" and one["expectation"] == BETWEEN)
    assert outcome["unexpected_count"] == 400
    assert outcome["unexpected_share"] == pytest.approx(1.0)
    assert len(outcome["examples"]) == MAX_EXAMPLES


@pytest.mark.parametrize("kind", WORDS)
def test_no_rows_at_all_are_refused_as_such(validator: Validator, kind: str) -> None:
    result = check(validator, kind, [])
    assert result["success"] is False
    assert ("expect_table_row_count_to_be_between", None) in failed(result)
    assert not [one["exception"] for one in result["expectations"] if one["exception"]]


def test_an_expectation_that_cannot_be_computed_says_so(validator: Validator) -> None:
    """A fault of the check is not told as bad data."""
    rows = [row | {"score": "high"} for row in good("scored")]
    result = check(validator, "scored", rows)
    assert result["success"] is False
    outcome = next(one for one in result["expectations"] if one["expectation"] == "expect_column_stdev_to_be_between")
    assert outcome["success"] is False
    assert outcome["exception"]
    assert outcome["unexpected_count"] == 0
    assert [one for one in result["expectations"] if one["success"]], "the others are still judged"


def test_sources_do_not_disturb_each_other(validator: Validator) -> None:
    first = check(validator, "pairs", good("pairs"))
    check(validator, "pairs", [row | {"language": "de"} for row in good("pairs")])
    again = check(validator, "pairs", good("pairs"))
    assert again | {"source": first["source"]} == first
