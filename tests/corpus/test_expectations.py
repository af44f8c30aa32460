"""The suite of each kind: good rows pass, and each fault is found by the expectation that is there for it."""

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stages.corpus.cleaning import SourceToRead
from stages.corpus.expectations import MAX_EXAMPLES, MAX_LABELS, Validator
from stages.corpus.profiles import Profile, drift, earlier, remember
from stages.corpus.tables import SCHEMAS
from stages.recipe.fields import Kind
from tests.corpus.builders import section, source

Row = dict[str, Any]
Check = Callable[[str, list[Row]], dict[str, Any]]
IDENTIFIED = pa.field("identified", pa.string())
NUMBERS = itertools.count()
WORDS: dict[str, dict[str, tuple[int, int]]] = {
    "pairs": {"query": (1, 5), "document": (2, 9)},
    "scored": {"text_a": (1, 3), "text_b": (1, 3)},
    "labelled": {"text": (1, 9)},
    "documents": {"text": (1, 9)},
}


def of_kind(kind: Kind, name: str = "wiki") -> SourceToRead:
    return source([], kind, name=name, words=WORDS[kind])


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator()


def good(kind: Kind, number: int = 40) -> list[Row]:
    texts: dict[str, Any] = {
        "pairs": lambda n: {"query": f"query {n}", "document": f"a document {n}"},
        "scored": lambda n: {"text_a": f"left {n}", "text_b": f"right {n}", "score": (n % 10) / 10},
        "labelled": lambda n: {"text": f"text {n}", "label": "abc"[n % 3]},
        "documents": lambda n: {"text": f"text {n}"},
    }
    origin = {"source": "wiki", "language": "en", "license": "MIT"}
    origin["identified"] = "en"
    return [{"id": f"wiki/{n}", "entity": f"e{n}", **origin, **texts[kind](n)} for n in range(number)]


@pytest.fixture
def check(validator: Validator, tmp_path: Path) -> Check:
    """Judges rows in tables of 25, or of more where there are thousands, as curate does."""

    def judge(kind: Kind, rows: list[Row]) -> dict[str, Any]:
        name = f"source-{next(NUMBERS)}"
        read = of_kind(kind, name)
        profile = Profile(read.section, tmp_path / name)
        whole = all(None not in row.values() for row in rows)  # cleaning lets no other row through to the profile

        def tables() -> Iterator[pa.Table]:
            size = max(25, len(rows) // 4)
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                table = pa.Table.from_pylist(part, schema=pa.schema([*SCHEMAS[kind], IDENTIFIED]))
                if whole:
                    profile.add(table, np.array([row.get("split", 0) for row in part], dtype=np.uint8))
                yield table.select(SCHEMAS[kind].names)

        return validator.validate(read, tables(), profile.facts)

    return judge


def failed(result: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(one["expectation"], one["column"]) for one in result["expectations"] if not one["success"]}


@pytest.mark.parametrize("kind", WORDS)
def test_good_rows_pass(check: Check, kind: Kind) -> None:
    result = check(kind, good(kind))
    assert failed(result) == set()
    assert result["success"] is True
    assert (result["source"][:7], result["kind"], result["rows"]) == ("source-", kind, 40)
    assert len(result["expectations"]) > 8
    assert all(one["exception"] is None for one in result["expectations"])


NULL, BETWEEN = "expect_column_values_to_not_be_null", "expect_column_values_to_be_between"
FAULTS: list[tuple[str, Row, str, str | None]] = [
    ("pairs", {"id": None}, NULL, "id"),
    ("pairs", {"entity": None}, NULL, "entity"),
    ("pairs", {"license": None}, NULL, "license"),
    ("pairs", {"language": "de"}, "expect_column_values_to_be_in_set", "language"),
    ("pairs", {"query": "a b c d e f"}, BETWEEN, "query_words"),
    ("pairs", {"document": "one"}, BETWEEN, "document_words"),
    ("pairs", {"query": "bell \x07"}, "expect_column_values_to_not_match_regex", "query"),
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
    ("documents", {"text": "a " * 10}, BETWEEN, "text_words"),
]


@pytest.mark.parametrize(
    ("kind", "change", "expectation", "column"),
    FAULTS,
    ids=[f"{one[0]}-{sorted(one[1])[0]}-{one[2][7:]}" for one in FAULTS],
)
def test_a_fault_fails_the_expectation_that_is_there_for_it(
    check: Check, kind: Kind, change: Row, expectation: str, column: str | None
) -> None:
    rows = good(kind)
    rows[7] |= change
    result = check(kind, rows)
    assert result["success"] is False
    assert (expectation, column) in failed(result)
    outcome = next(
        one for one in result["expectations"] if (one["expectation"], one["column"]) == (expectation, column)
    )
    assert outcome["exception"] is None
    assert outcome["unexpected_count"] == 1
    assert 0 < outcome["unexpected_share"] < 0.1
    if expectation != NULL:
        assert outcome["examples"]


@pytest.mark.parametrize(
    ("kind", "change", "column"),
    [
        ("pairs", {"id": "wiki/1"}, "repeated_id"),
        ("pairs", {"query": "query 1"}, "repeated_query"),
        ("pairs", {"document": "a document 1"}, "repeated_document"),
        ("documents", {"text": "text 1"}, "repeated_text"),
        ("documents", {"entity": "e1", "split": 2}, "entities_in_two_splits"),
    ],
)
def test_what_repeats_in_tables_far_apart_is_found(check: Check, kind: Kind, change: Row, column: str) -> None:
    rows = good(kind)
    rows[37] |= change
    result = check(kind, rows)
    assert failed(result) == {(BETWEEN, column)}
    assert next(one["observed"] for one in result["expectations"] if one["column"] == column) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.5, 5.0, 10.0, 100.0])
def test_scores_scaled_twice_are_refused(check: Check, scale: float) -> None:
    rows = [row | {"score": row["score"] / scale} for row in good("scored")]
    assert (BETWEEN, "score_range") in failed(check("scored", rows))


def test_scores_of_two_values_are_refused(check: Check) -> None:
    rows = [row | {"score": float(row["score"] > 0.5)} for row in good("scored")]
    assert failed(check("scored", rows)) == {(BETWEEN, "distinct_scores")}


def test_scores_of_one_value_and_a_few_others_are_refused(check: Check) -> None:
    rows = [row | {"score": 0.9} for row in good("scored", 4000)]
    for row, score in zip(rows, (0.0, 0.1, 0.2, 0.3, 1.0), strict=False):
        row["score"] = score
    assert failed(check("scored", rows)) == {(BETWEEN, "score_stdev")}


@pytest.mark.parametrize("number", [1, MAX_LABELS + 1])
def test_one_label_or_a_label_a_text_is_refused(check: Check, number: int) -> None:
    rows = [row | {"label": f"label {n % number}"} for n, row in enumerate(good("labelled", MAX_LABELS + 1))]
    assert failed(check("labelled", rows)) == {(BETWEEN, "distinct_labels")}


@pytest.mark.slow
def test_many_faults_give_few_examples_and_the_full_count(check: Check) -> None:
    rows = [row | {"score": 7.0 + n} for n, row in enumerate(good("scored", 400))]
    result = check("scored", rows)
    outcome = next(one for one in result["expectations"] if one["column"] == "score" and one["expectation"] == BETWEEN)
    assert outcome["unexpected_count"] == 400
    assert outcome["unexpected_share"] == pytest.approx(1.0)
    assert len(outcome["examples"]) == MAX_EXAMPLES


@pytest.mark.parametrize("kind", WORDS)
def test_no_rows_at_all_are_refused_as_such(check: Check, kind: Kind) -> None:
    result = check(kind, [])
    assert failed(result) == {(BETWEEN, "rows")}
    assert not [one["exception"] for one in result["expectations"] if one["exception"]]


def test_an_expectation_that_cannot_be_computed_says_so(validator: Validator) -> None:
    """A fault of the check is not told as bad data."""
    table = pa.Table.from_pylist([row | {"score": "high"} for row in good("scored")])
    result = validator.validate(of_kind("scored", "words"), [table], lambda: {"rows": 40, "score_range": 1.0})
    assert result["success"] is False
    outcomes = {one["column"]: one for one in result["expectations"] if one["expectation"] == BETWEEN}
    for column in ("score", "score_stdev"):  # a word where a number should be; a fact that nobody found
        outcome = outcomes[column]
        assert outcome["success"] is False
        assert outcome["exception"]
        assert not outcome["unexpected_count"]
        assert not outcome["examples"]
    assert outcomes["score_range"]["success"], "the others are still judged"


@pytest.mark.slow
def test_sources_do_not_disturb_each_other(check: Check) -> None:
    first = check("pairs", good("pairs"))
    check("pairs", [row | {"language": "de"} for row in good("pairs")])
    again = check("pairs", good("pairs"))
    assert again | {"source": first["source"]} == first


@pytest.mark.slow
def test_no_table_outlives_its_judgement(validator: Validator) -> None:
    """A data source of Great Expectations keeps every table that it was given, and memory would grow with the rows."""
    tables = (pa.Table.from_pylist(good("documents", 1009)) for _ in range(3))
    found = validator.validate(of_kind("documents", "held"), tables, lambda: {"rows": 3027.0})
    gc.collect()
    assert found["rows"] == 3027
    assert not [one for one in gc.get_objects() if type(one) is pd.DataFrame and len(one) == 1009]


# Drift


def summary(rows: list[Row], folder: Path) -> dict[str, Any]:
    profile = Profile(section("documents"), folder)
    profile.add(pa.Table.from_pylist(rows), np.zeros(len(rows), dtype=np.uint8))
    return profile.summary()


def test_drift_tells_rows_lengths_and_languages_apart(tmp_path: Path) -> None:
    rows = good("documents", 100)
    before = summary(rows, tmp_path / "before")
    assert before["words"] == {"text": 2.0} and before["languages"] == {"en": 100}
    assert drift(before, before)["lengths"] == drift(before, before)["languages"] == 0.0
    changed = [row | {"text": "a" + " a" * 19, "identified": "fr"} for row in rows[:25]] + rows[25:]
    found = drift(before, summary(changed, tmp_path / "after"))
    assert found["lengths"] == found["languages"] == 0.25
    assert (found["rows"], found["rows_before"]) == (100, 100)
    assert found["words"] == {"text": 6.5}


def test_the_same_rows_again_are_compared_with_the_same_version(tmp_path: Path) -> None:
    file = tmp_path / "profiles" / "toy.json"
    first, second, third = ({"toy": {"rows": rows}} for rows in (1, 2, 3))
    for now, expected in ((first, {}), (first, {}), (second, first), (second, first), (third, second)):
        assert earlier(file, now) == expected
        remember(file, now)
