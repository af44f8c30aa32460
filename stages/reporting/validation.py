"""The validation page: what the data of a build was expected to be, and where it was not.

Texts on this page are other people's: the template escapes everything, and long texts are cut.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from stages.reporting import number_format as formats
from stages.reporting.page import render

MAX_CHARACTERS = 300  # of an example; enough to recognise a row
MAX_NAMED = 5  # failures in the verdict, which all follow below it; languages of a source
NOTABLE = 0.1  # share of rows, or distance of distributions


def render_validation(result: Mapping[str, Any]) -> str:
    """Render the result of validating the curated data; the same result gives the same bytes.

    Args:
        result: `created`, `success`, `suites` with their expectations, `rejected` rows by reason, `splits`,
            `overlaps` of test sets with train and dev, `profiles` and `drift` of sources.

    Returns:
        An HTML document that requests nothing from anywhere.
    """
    suites = result["suites"]
    failures = [(suite, row) for suite in suites for row in suite["expectations"] if not row["success"]]
    return render(
        "validation.html.j2",
        name="Data validation",
        created=result["created"],
        verdict=_verdict(bool(result["success"]), suites, failures),
        failures=failures,
        suites=suites,
        num_rejected=sum(row["rows"] for row in result["rejected"]),
        rejected=_by_source(result["rejected"]),
        splits=[_with_totals(row) for row in result["splits"]],
        overlaps=result["overlaps"],
        looked_inside=any(row["inside"] is not None for row in result["overlaps"]),
        profiles=[{**row, **_languages(row["rows"], row["languages"])} for row in result["profiles"]],
        similar_labels=[
            (row["source"], labels) for row in result["profiles"] for labels in row.get("similar_labels", ())
        ],
        drift=[{**row, **_change(row)} for row in result["drift"]],
        as_text=as_text,
        expectation=_expectation,
    )


def as_text(value: Any) -> str:
    """Write any JSON value as a short text: `key: value` lines for a row, JSON for the rest."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {as_text(item)}" for key, item in value.items())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}… ({formats.count(len(text))} characters)"


def _verdict(success: bool, suites: Sequence[Any], failures: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Write the first sentence of the page."""
    expectations = _number(sum(len(suite["expectations"]) for suite in suites), "expectation")
    if failures:
        named = [_failure(suite, row) for suite, row in failures[:MAX_NAMED]]
        if len(failures) > MAX_NAMED:
            named.append(f"and {len(failures) - MAX_NAMED} more")
        text = f"{len(failures)} of {expectations} not met: {'; '.join(named)}."
        return {"state": "failed", "title": "Failed", "text": text}
    if not success:
        text = "The input was refused although every expectation holds: see the rejected rows below."
        return {"state": "failed", "title": "Failed", "text": text}
    rows = _number(sum(suite["rows"] for suite in suites), "row")
    text = f"{rows} of {_number(len(suites), 'source')} meet all of {expectations}."
    return {"state": "passed", "title": "Passed", "text": text}


def _failure(suite: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Name an expectation, and count the rows that do not meet it."""
    column = f"{suite['source']}, {row['column']}" if row["column"] else suite["source"]
    count = "not checked" if row["exception"] else _number(row["unexpected_count"] or 0, "row")
    is_known = row["exception"] or row["unexpected_count"] is not None
    return f"{column}: {_expectation(row).lower()}" + (f" ({count})" if is_known else "")


def _expectation(row: Mapping[str, Any]) -> str:
    return formats.words(row["expectation"].removeprefix("expect_"))


def _number(count: int, noun: str) -> str:
    return f"{formats.count(count)} {noun}{'' if count == 1 else 's'}"


def _by_source(rejected: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, list[Mapping[str, Any]]]]:
    """Group rejected rows as (source, rows, reasons) with the most frequent reason first."""
    ordered = sorted(rejected, key=lambda row: (row["source"], -row["rows"], row["reason"]))
    grouped = [(source, list(rows)) for source, rows in groupby(ordered, key=lambda row: str(row["source"]))]
    return [(source, sum(row["rows"] for row in rows), rows) for source, rows in grouped]


def _with_totals(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add the rows that are kept in all splits, and those left out because of `max_rows`."""
    kept = row["train"] + row["dev"] + row["test"]
    return {**row, "kept": kept, "left_out": row["read"] - row["rejected"] - kept}


def _languages(num_rows: int, rows: Mapping[str, int]) -> dict[str, Any]:
    """Return the most frequent languages of identified rows with their shares, and the share that was identified."""
    known = {name: count for name, count in rows.items() if name}
    total = sum(known.values())
    most = sorted(known.items(), key=lambda language: (-language[1], language[0]))[:MAX_NAMED]
    return {"languages": [(name, count / total) for name, count in most], "identified": total / max(1, num_rows)}


def _change(row: Mapping[str, Any]) -> dict[str, Any]:
    """Say by how much a source changed, and whether that is notable."""
    change = row["rows"] / row["rows_before"] - 1 if row["rows_before"] else 1.0
    return {"change": change, "notable": max(abs(change), row["lengths"], row["languages"]) > NOTABLE}
