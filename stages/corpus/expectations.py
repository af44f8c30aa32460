"""Great Expectations suites, two per kind: for rows, judged a table at a time, and for what a source is as a whole."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig

from stages.corpus.cleaning import Limits
from stages.corpus.languages import DECLARED, MANY

MAX_EXAMPLES = 20
# More distinct labels than this in one source are texts, not classes.
MAX_LABELS = 500

Expectation = gxe.Expectation


def suite_for(kind: str, limits: Limits, language: str) -> list[Expectation]:
    """What each row of a kind must satisfy."""
    columns = ["id", "entity", "source", "license", *limits.lengths]
    expected: list[Expectation] = [gxe.ExpectColumnValuesToNotBeNull(column=column) for column in columns]
    expected.append(_expected_language(language))
    for name, (least, most) in limits.lengths.items():
        counted = f"{name}_{limits.measure.unit}"
        expected.append(gxe.ExpectColumnValuesToBeBetween(column=counted, min_value=least, max_value=most))
        expected.append(gxe.ExpectColumnValuesToNotMatchRegex(column=name, regex=r"[\x00-\x08\x0b\x0c\x0e-\x1f]"))
    return expected + [build() for build in _OF_KIND[kind]]


def whole_suite_for(kind: str, facts: Mapping[str, float]) -> list[Expectation]:
    """What a source must satisfy as a whole, each a limit on one of its facts (see `Profile.facts`)."""
    limits: dict[str, tuple[float | None, float | None]] = {"rows": (1, None)}
    if facts["rows"]:  # of no rows, the rest says nothing
        limits |= {name: (None, 0) for name in facts if name.startswith(("repeated_", "entities_"))}
        limits |= _LIMITS_OF_KIND[kind]
    return [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=least, max_value=most)
        for name, (least, most) in limits.items()
    ]


def _expected_language(declared: str) -> Expectation:
    if declared == MANY:
        return gxe.ExpectColumnValuesToMatchRegex(column="language", regex=DECLARED.pattern)
    return gxe.ExpectColumnValuesToBeInSet(column="language", value_set=[declared])


_OF_KIND: dict[str, list[Callable[[], Expectation]]] = {
    "pairs": [lambda: gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="differs", column_B="zero")],
    "scored": [
        lambda: gxe.ExpectColumnValuesToNotBeNull(column="score"),  # the next one passes over what is null
        lambda: gxe.ExpectColumnValuesToBeBetween(column="score", min_value=0.0, max_value=1.0),
    ],
    "labelled": [lambda: gxe.ExpectColumnValuesToNotBeNull(column="label")],
    "documents": [],
}
_LIMITS_OF_KIND: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "pairs": {},
    # Scores scaled twice lie close together; scores of two values are labels.
    "scored": {"score_range": (0.5, None), "score_stdev": (0.05, None), "distinct_scores": (5, None)},
    "labelled": {"distinct_labels": (2, MAX_LABELS)},
    "documents": {},
}


class Validator:
    """One ephemeral Great Expectations context for all the sources of a build."""

    def __init__(self) -> None:
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)

    def validate(
        self,
        tables: Iterable[pa.Table],
        origin: Mapping[str, str],
        limits: Limits,
        facts: Callable[[], Mapping[str, float]],
    ) -> dict[str, Any]:
        """Judge a source's rows, a table at a time, and then its facts as a whole.

        Args:
            origin: `source`, `kind` and `language`.
            limits: the source's, whose lengths are counted again here.
            facts: asked for when all the tables have been read; see `Profile.facts`.

        Returns:
            {source, kind, rows, success, expectations: [{expectation, column, kwargs, success, observed,
            unexpected_count, unexpected_share, examples, exception}]}.
        """
        name, kind, rows = origin["source"], origin["kind"], 0
        suite = suite_for(kind, limits, origin["language"])
        judged: list[list[dict[str, Any]]] = []
        for table in tables:
            rows += len(table)
            judged.append(self._judge(f"{name} {len(judged)}", _measured(table.to_pandas(), kind, limits), suite))
        known = dict(facts())
        # Results come in no order to rely on.
        by_name = [{(one["expectation"], one["column"]): one for one in outcomes} for outcomes in judged]
        outcomes = [_merged([part[key] for part in by_name], rows) for key in (by_name[0] if by_name else ())]
        outcomes += self._judge(f"{name} whole", pd.DataFrame([known]), whole_suite_for(kind, known), whole=True)
        return {
            "source": name,
            "kind": kind,
            "rows": rows,
            "success": all(outcome["success"] for outcome in outcomes),
            "expectations": outcomes,
        }

    def _judge(
        self, name: str, frame: pd.DataFrame, expected: Sequence[Expectation], whole: bool = False
    ) -> list[dict[str, Any]]:
        asset = self._context.data_sources.add_pandas(name).add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        suite = gx.ExpectationSuite(name=name, expectations=list(expected))
        result = batch.validate(
            suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES}
        )
        self._context.data_sources.delete(name)  # with it goes its engine, which keeps every table it was given
        return [_outcome(one, frame if whole else None) for one in result.to_json_dict()["results"]]


def _merged(parts: Sequence[dict[str, Any]], rows: int) -> dict[str, Any]:
    """The outcome of one expectation over all the tables of a source."""
    unexpected = sum(part["unexpected_count"] for part in parts)
    return parts[0] | {
        "success": all(part["success"] for part in parts),
        "unexpected_count": unexpected,
        "unexpected_share": unexpected / rows,
        "examples": [example for part in parts for example in part["examples"]][:MAX_EXAMPLES],
        "exception": next((part["exception"] for part in parts if part["exception"]), None),
    }


def _measured(frame: pd.DataFrame, kind: str, limits: Limits) -> pd.DataFrame:
    """The rows with what the suites look at beside the columns: lengths, and whether a pair's sides differ."""
    counts: dict[str, Any] = {
        f"{name}_{limits.measure.unit}": limits.measure.count(frame[name].fillna("").tolist())
        for name in limits.lengths
    }
    if kind == "pairs":
        counts |= {"differs": (frame["query"] != frame["document"]).astype(int), "zero": 0}
    return frame.assign(**counts)


def _outcome(result: dict[str, Any], facts: pd.DataFrame | None) -> dict[str, Any]:
    """What is kept of a result; where a fact was judged, its value is what was observed, and no row is to blame."""
    kwargs = {name: value for name, value in result["expectation_config"]["kwargs"].items() if name != "batch_id"}
    column, found = kwargs.pop("column", None), result.get("result", {})
    return {
        "expectation": result["expectation_config"]["type"],
        "column": column,
        "kwargs": kwargs,
        "success": bool(result["success"]),
        "observed": found.get("observed_value") if facts is None else facts.get(column, pd.Series([None]))[0],
        "unexpected_count": int(found.get("unexpected_count") or 0) if facts is None else None,
        "unexpected_share": float(found.get("unexpected_percent") or 0.0) / 100 if facts is None else None,
        "examples": found.get("partial_unexpected_list", []) if facts is None else [],
        "exception": _exception(result.get("exception_info", {})),
    }


def _exception(info: dict[str, Any]) -> str | None:
    """The message of an expectation that could not be computed: a fault of the check, not of the data."""
    details = [info] if "raised_exception" in info else list(info.values())
    messages = [detail["exception_message"] for detail in details if detail.get("raised_exception")]
    return "; ".join(messages) or None
