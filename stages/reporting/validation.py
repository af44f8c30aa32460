"""The validation page: what the data of a build was expected to be, and where it was not.

Texts on this page are other people's: everything is escaped by the template and long texts are cut.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from stages.reporting import number_format as formats
from stages.reporting.page import render

MAX_CHARACTERS = 300  # of an example; enough to recognise a row
MAX_NAMED = 5  # failures named in the verdict; all of them follow below it
SPLITS = ("train", "dev", "test")
NOTABLE = 0.1  # share of rows, or distance of distributions


def render_validation(result: dict[str, Any]) -> str:
    """Render the result of validating the curated data; the same result gives the same bytes.

    Args:
        result: `created`, `success`, `suites` with their expectations, `rejected` rows by reason, `splits`,
            `overlaps` of test sets with train and dev, `profiles` and `drift` of sources.

    Returns:
        An HTML document that requests nothing from anywhere.
    """
    suites = [_suite(suite) for suite in result.get("suites") or []]
    failures = [(suite, row) for suite in suites for row in suite["expectations"] if not row["success"]]
    rejected = [_rejection(row) for row in result.get("rejected") or []]
    return render(
        "validation.html.j2",
        name="Data validation",
        created=result.get("created"),
        verdict=_verdict(bool(result["success"]), suites, failures),
        failures=failures,
        suites=suites,
        num_rejected=sum(row["rows"] for row in rejected),
        rejected=_by_source(rejected),
        splits=[_split(row) for row in result.get("splits") or []],
        overlaps=result.get("overlaps") or [],
        looked_inside=any(row["inside"] is not None for row in result.get("overlaps") or []),
        profiles=[_profile(row) for row in result.get("profiles") or []],
        drift=[_drift(row) for row in result.get("drift") or []],
    )


def _verdict(success: bool, suites: Sequence[Any], failures: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """The first sentence of the page."""
    num_expectations = sum(len(suite["expectations"]) for suite in suites)
    if success and not num_expectations:
        return {"state": "none", "title": "No verdict", "text": "No expectation was checked."}
    if success and not failures:
        rows = _number(sum(suite["rows"] for suite in suites), "row")
        sources, expectations = _number(len(suites), "source"), _number(num_expectations, "expectation")
        text = f"{rows} of {sources} meet all of {expectations}."
        return {"state": "passed", "title": "Passed", "text": text}
    if failures:
        named = [_failure(suite, row) for suite, row in failures[:MAX_NAMED]]
        if len(failures) > MAX_NAMED:
            named.append(f"and {len(failures) - MAX_NAMED} more")
        text = f"{len(failures)} of {_number(num_expectations, 'expectation')} not met: {'; '.join(named)}."
        return {"state": "failed", "title": "Failed", "text": text}
    text = "The input was refused although every expectation holds: see the rejected rows below."
    return {"state": "failed", "title": "Failed", "text": text}


def _failure(suite: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Which expectation, and on how many rows."""
    place = f"{suite['source']}, {row['column']}" if row["column"] else suite["source"]
    found = "not checked" if row["exception"] else _number(row["unexpected_count"] or 0, "row")
    known = row["exception"] or row["unexpected_count"] is not None
    return f"{place}: {row['name'].lower()}" + (f" ({found})" if known else "")


def _number(count: int, noun: str) -> str:
    return f"{formats.count(count)} {noun}{'' if count == 1 else 's'}"


def _suite(suite: Mapping[str, Any]) -> dict[str, Any]:
    """One source with its expectations, failed ones first."""
    rows = [_expectation(row) for row in suite.get("expectations") or []]
    rows.sort(key=lambda row: bool(row["success"]))
    return {
        "source": suite["source"],
        "success": suite["success"],
        "kind": suite.get("kind") or "",
        "rows": suite.get("rows") or 0,
        "expectations": rows,
        "met": sum(bool(row["success"]) for row in rows),
    }


def _expectation(row: Mapping[str, Any]) -> dict[str, Any]:
    """One expectation in words."""
    kwargs = {key: value for key, value in (row.get("kwargs") or {}).items() if key != "column"}
    return {
        "name": formats.words(row["expectation"].removeprefix("expect_")),
        "column": row.get("column"),
        "kwargs": [(key, as_text(value)) for key, value in kwargs.items()],
        "success": row["success"],
        "observed": None if row.get("observed") is None else as_text(row["observed"]),
        "unexpected_count": row.get("unexpected_count"),
        "unexpected_share": row.get("unexpected_share"),
        "examples": [as_text(example) for example in row.get("examples") or []],
        "exception": row.get("exception"),
    }


def as_text(value: Any) -> str:
    """Write any JSON value as a short text: `key: value` lines for a row, JSON for the rest."""
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {as_text(item)}" for key, item in value.items())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}… ({formats.count(len(text))} characters)"


def _rejection(row: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of one source rejected for one reason."""
    return {
        "source": row["source"],
        "reason": formats.words(row["reason"]),
        "rows": row.get("rows") or 0,
        "examples": [as_text(example) for example in row.get("examples") or []],
    }


def _by_source(rejected: Iterable[dict[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """(source, rows, reasons) with the most frequent reason first."""
    ordered = sorted(rejected, key=lambda row: (row["source"], -row["rows"], row["reason"]))
    grouped = [(source, list(rows)) for source, rows in groupby(ordered, key=lambda row: str(row["source"]))]
    return [(source, sum(row["rows"] for row in rows), rows) for source, rows in grouped]


def _split(row: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of one source as they were read, rejected, left out beyond the recipe's number, and kept in each split."""
    rows = {split: row.get(split) or 0 for split in SPLITS}
    kept, read, rejected = sum(rows.values()), row["read"], row["rejected"]
    share = rejected / max(1, read)
    return {
        "source": row["source"], **rows, "total": kept,
        "read": read, "rejected": rejected, "rejected_share": share, "left_out": read - rejected - kept,
    }  # fmt: skip


def _profile(row: Mapping[str, Any]) -> dict[str, Any]:
    """A source's rows, mean words of each text, and shares of the languages that could be told."""
    known = {name: rows for name, rows in row["languages"].items() if name}
    told = sum(known.values())
    languages = sorted(known.items(), key=lambda one: (-one[1], one[0]))[:MAX_NAMED]
    return {
        "source": row["source"],
        "rows": row["rows"],
        "words": ", ".join(f"{name} {mean:g}" for name, mean in row["words"].items()),
        "languages": [(name, rows / told) for name, rows in languages],
        "told": told / max(1, row["rows"]),
    }


def _drift(row: Mapping[str, Any]) -> dict[str, Any]:
    """How a source moved, and whether that is worth a look."""
    change = row["rows"] / row["rows_before"] - 1 if row["rows_before"] else 1.0
    words = [f"{name} {row['words_before'].get(name, 0):g} → {mean:g}" for name, mean in row["words"].items()]
    notable = abs(change) > NOTABLE or row["lengths"] > NOTABLE or row["languages"] > NOTABLE
    return {**row, "change": change, "words": ", ".join(words), "notable": notable}
