"""Great Expectations suites, two for each kind: for rows, judged a table at a time, and for a source as a whole."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig

from stages.corpus.cleaning import SourceToRead
from stages.corpus.languages import DECLARED, MULTIPLE

MAX_EXAMPLES = 20
# More distinct labels than this in one source are texts, not classes.
MAX_LABELS = 500
# Lowest and highest value of a source's facts, by kind. Scores scaled twice lie close together; scores of two values
# are labels.
Limits = dict[str, tuple[float | None, float | None]]
FACT_LIMITS: dict[str, Limits] = {
    "pairs": {},
    "scored": {"score_range": (0.5, None), "score_stdev": (0.05, None), "distinct_scores": (5, None)},
    "labelled": {"distinct_labels": (2, MAX_LABELS)},
    "documents": {},
    "parallel": {},
}


def row_suite(source: SourceToRead) -> list[gxe.Expectation]:
    """Make the expectations of each row of a source."""
    section = source.section
    filled = ["id", "entity", "source", "license", *section.lengths]
    expected: list[gxe.Expectation] = [gxe.ExpectColumnValuesToNotBeNull(column=column) for column in filled]
    if section.language == MULTIPLE:
        expected.append(gxe.ExpectColumnValuesToMatchRegex(column="language", regex=DECLARED.pattern))
    else:
        expected.append(gxe.ExpectColumnValuesToBeInSet(column="language", value_set=[section.language]))
    for name, limits in section.lengths.items():
        expected.append(_between(f"{name}_{source.measure.unit}", *limits))
        expected.append(gxe.ExpectColumnValuesToNotMatchRegex(column=name, regex=r"[\x00-\x08\x0b\x0c\x0e-\x1f]"))
    if section.kind == "pairs":
        expected.append(gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="differs", column_B="zero"))
    if section.kind == "scored":  # the second passes over what is null
        expected += [gxe.ExpectColumnValuesToNotBeNull(column="score"), _between("score", 0.0, 1.0)]
    if section.kind == "labelled":
        expected.append(gxe.ExpectColumnValuesToNotBeNull(column="label"))
    return expected


def source_suite(kind: str, facts: Mapping[str, float]) -> list[gxe.Expectation]:
    """Make the expectations of a source as a whole, each a limit on one of its facts (see `Profile.facts`)."""
    limits: Limits = {"rows": (1, None)}
    if facts["rows"]:  # without rows, the other facts mean nothing
        limits |= {name: (None, 0) for name in facts if name.startswith(("repeated_", "entities_"))}
        limits |= FACT_LIMITS[kind]
    return [_between(name, least, most) for name, (least, most) in limits.items()]


def _between(column: str, least: float | None, most: float | None) -> gxe.Expectation:
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=least, max_value=most)


class Validator:
    """One ephemeral Great Expectations context for all sources of a build."""

    def __init__(self) -> None:
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)

    def validate(
        self, source: SourceToRead, tables: Iterable[pa.Table], facts: Callable[[], Mapping[str, float]]
    ) -> dict[str, Any]:
        """Judge a source's rows, a table at a time, and then its facts as a whole.

        Args:
            facts: called when all tables have been read; see `Profile.facts`.

        Returns:
            {source, kind, rows, success, expectations: [{expectation, column, kwargs, success, observed,
            unexpected_count, unexpected_share, examples, exception}]}.
        """
        name, kind, suite, num_rows = source.section.name, source.section.kind, row_suite(source), 0
        # Outcomes of each table by expectation, because results come in no order to rely on.
        judged: list[dict[tuple[str, str | None], dict[str, Any]]] = []
        for table in tables:
            num_rows += len(table)
            results = self._judge(f"{name} {len(judged)}", _measured(table.to_pandas(), source), suite)
            judged.append({(one["expectation"], one["column"]): one for one in map(_row_outcome, results)})
        outcomes = [_merged([part[key] for part in judged], num_rows) for key in (judged[0] if judged else ())]
        known = dict(facts())
        results = self._judge(f"{name} whole", pd.DataFrame([known]), source_suite(kind, known))
        outcomes += [_fact_outcome(result, known) for result in results]
        success = all(outcome["success"] for outcome in outcomes)
        return {"source": name, "kind": kind, "rows": num_rows, "success": success, "expectations": outcomes}

    def _judge(self, name: str, frame: pd.DataFrame, expected: Sequence[gxe.Expectation]) -> list[dict[str, Any]]:
        asset = self._context.data_sources.add_pandas(name).add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        suite = gx.ExpectationSuite(name=name, expectations=list(expected))
        result = batch.validate(
            suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES}
        )
        self._context.data_sources.delete(name)  # with it goes its engine, which holds every table it was given
        results: list[dict[str, Any]] = result.to_json_dict()["results"]
        return results


def _measured(frame: pd.DataFrame, source: SourceToRead) -> pd.DataFrame:
    """Add the columns that only the suites read: lengths of texts, and whether the texts of a pair differ."""
    measure = source.measure
    counts: dict[str, Any] = {
        f"{name}_{measure.unit}": measure.count(frame[name].fillna("").tolist()) for name in source.section.lengths
    }
    if source.section.kind == "pairs":
        counts |= {"differs": (frame["query"] != frame["document"]).astype(int), "zero": 0}
    return frame.assign(**counts)


def _row_outcome(result: dict[str, Any]) -> dict[str, Any]:
    found = result.get("result", {})
    return _outcome(result) | {
        "observed": found.get("observed_value"),
        "unexpected_count": int(found.get("unexpected_count") or 0),
        "unexpected_share": float(found.get("unexpected_percent") or 0.0) / 100,
        "examples": found.get("partial_unexpected_list", []),
    }


def _fact_outcome(result: dict[str, Any], facts: Mapping[str, float]) -> dict[str, Any]:
    """Describe the outcome of a fact: its value is what was observed, and no row is to blame."""
    outcome = _outcome(result)
    observed = facts.get(outcome["column"])
    return outcome | {"observed": observed, "unexpected_count": None, "unexpected_share": None, "examples": []}


def _outcome(result: dict[str, Any]) -> dict[str, Any]:
    kwargs = {name: value for name, value in result["expectation_config"]["kwargs"].items() if name != "batch_id"}
    info = result.get("exception_info", {})
    details = [info] if "raised_exception" in info else list(info.values())
    messages = [detail["exception_message"] for detail in details if detail.get("raised_exception")]
    return {
        "expectation": result["expectation_config"]["type"],
        "column": kwargs.pop("column", None),
        "kwargs": kwargs,
        "success": bool(result["success"]),
        "exception": "; ".join(messages) or None,  # a fault of the check, not of the data
    }


def _merged(parts: Sequence[dict[str, Any]], num_rows: int) -> dict[str, Any]:
    """Merge the outcomes of one expectation over all tables of a source."""
    unexpected = sum(part["unexpected_count"] for part in parts)
    return parts[0] | {
        "success": all(part["success"] for part in parts),
        "unexpected_count": unexpected,
        "unexpected_share": unexpected / num_rows,
        "examples": [example for part in parts for example in part["examples"]][:MAX_EXAMPLES],
        "exception": next((part["exception"] for part in parts if part["exception"]), None),
    }
