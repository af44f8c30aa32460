"""Great Expectations suites, one per kind of row, and their results as plain data."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig

MAX_EXAMPLES = 20
# More distinct labels than this in one source are texts, not classes.
MAX_LABELS = 500

Expectation = gxe.Expectation


def suite_for(kind: str, words: Mapping[str, tuple[int, int]], language: str) -> list[Expectation]:
    """What rows of a kind must satisfy; `words` gives each text field's least and most words."""
    columns = ["id", "entity", "source", "license", *words]
    expected: list[Expectation] = [_some_rows()]
    expected += [gxe.ExpectColumnValuesToNotBeNull(column=column) for column in columns]
    expected.append(gxe.ExpectColumnValuesToBeUnique(column="id"))
    expected.append(gxe.ExpectColumnValuesToBeInSet(column="language", value_set=[language]))
    for name, (least, most) in words.items():
        expected.append(gxe.ExpectColumnValuesToBeBetween(column=f"{name}_words", min_value=least, max_value=most))
        expected.append(gxe.ExpectColumnValuesToNotMatchRegex(column=name, regex=r"[\x00-\x08\x0b\x0c\x0e-\x1f]"))
    return expected + _OF_KIND[kind]()


def _some_rows() -> Expectation:
    return gxe.ExpectTableRowCountToBeBetween(min_value=1)


def _pairs() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeUnique(column="query"),
        gxe.ExpectColumnValuesToBeUnique(column="document"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="differs", column_B="zero"),
    ]


def _scored() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="score"),  # the next ones pass over what is null
        gxe.ExpectColumnValuesToBeBetween(column="score", min_value=0.0, max_value=1.0),
        # Scores scaled twice, or of two values only, are not graded.
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="score", min_value=5),
        gxe.ExpectColumnStdevToBeBetween(column="score", min_value=0.05),
    ]


def _labelled() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="label"),
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="label", min_value=2, max_value=MAX_LABELS),
    ]


def _documents() -> list[Expectation]:
    return [gxe.ExpectColumnValuesToBeUnique(column="text")]


_OF_KIND = {"pairs": _pairs, "scored": _scored, "labelled": _labelled, "documents": _documents}


class Validator:
    """One ephemeral Great Expectations context for all the sources of a build."""

    def __init__(self) -> None:
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._source = self._context.data_sources.add_pandas("curated")

    def validate(
        self, name: str, kind: str, rows: list[dict[str, Any]], words: Mapping[str, tuple[int, int]], language: str
    ) -> dict[str, Any]:
        """Run the kind's suite over a source's rows.

        Returns:
            {source, kind, rows, success, expectations: [{expectation, column, kwargs, success, observed,
            unexpected_count, unexpected_share, examples, exception}]}.
        """
        frame = _measured(pd.DataFrame(rows), kind, words) if rows else pd.DataFrame()
        asset = self._source.add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        expected = suite_for(kind, words, language) if rows else [_some_rows()]  # of no rows, the rest says nothing
        suite = gx.ExpectationSuite(name=name, expectations=expected)
        result = batch.validate(
            suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES}
        )
        outcomes = list(_outcomes(result.to_json_dict()["results"]))
        return {
            "source": name,
            "kind": kind,
            "rows": len(rows),
            "success": all(outcome["success"] for outcome in outcomes),
            "expectations": outcomes,
        }


def _measured(frame: pd.DataFrame, kind: str, words: Mapping[str, tuple[int, int]]) -> pd.DataFrame:
    """The rows with what the suites look at beside the columns: word counts, and whether a pair's sides differ."""
    counts = {f"{name}_words": frame[name].str.split().str.len() for name in words}
    if kind == "pairs":
        counts |= {"differs": (frame["query"] != frame["document"]).astype(int), "zero": 0}
    return frame.assign(**counts)


def _outcomes(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        kwargs = {name: value for name, value in result["expectation_config"]["kwargs"].items() if name != "batch_id"}
        found = result.get("result", {})
        yield {
            "expectation": result["expectation_config"]["type"],
            "column": kwargs.pop("column", None),
            "kwargs": kwargs,
            "success": bool(result["success"]),
            "observed": found.get("observed_value"),
            "unexpected_count": int(found.get("unexpected_count") or 0),
            "unexpected_share": float(found.get("unexpected_percent") or 0.0) / 100,
            "examples": found.get("partial_unexpected_list", []),
            "exception": _exception(result.get("exception_info", {})),
        }


def _exception(info: dict[str, Any]) -> str | None:
    """The message of an expectation that could not be computed: a fault of the check, not of the data."""
    details = [info] if "raised_exception" in info else list(info.values())
    messages = [detail["exception_message"] for detail in details if detail.get("raised_exception")]
    return "; ".join(messages) or None
