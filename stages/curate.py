"""Curate: sources in, clean and validated rows out, split by entity.

Writes data/curated: <kind>/<split>.parquet, rejected.parquet and counts.json; and data/validated: validation.json and
validation.html. Rows that the validation refuses are kept under .stillhouse/refused, where no run of DVC removes them.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.params import Params, Source, load

CURATED = Path("data/curated")
VALIDATED = Path("data/validated")
REFUSED = Path(".stillhouse/refused")


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.tracking import stage_run

    with stage_run(stage="curate", params=params.model_dump(include={"name", "seed", "curate"}), inputs=[]) as run:
        counts = curate(params, CURATED, VALIDATED)
        run.log_metrics({f"{name}.{split}": float(rows) for name, split, rows in _flat(counts)})
        for page in (CURATED / "counts.json", VALIDATED / "validation.json", VALIDATED / "validation.html"):
            run.log_artifact(page)


def curate(params: Params, curated: Path, validated: Path) -> dict[str, dict[str, int]]:
    """Curate every source; returns rows by source and split.

    Raises:
        SystemExit: a source was refused; names the expectation, the rows and where to read them.
    """
    from tqdm import tqdm

    from stages.corpus.cleaning import Cleaned, clean
    from stages.corpus.expectations import Validator

    validator = Validator()
    cleaned: dict[str, Cleaned] = {}
    suites: list[dict[str, Any]] = []
    with tqdm(params.curate.sources, desc="curate", unit="source") as bar:
        for source in bar:
            bar.set_postfix_str(source.name)
            cleaned[source.name] = clean(_records(source), _origin(source), _limits(source, params.seed))
            rows = [row for split in cleaned[source.name].splits.values() for row in split]
            suites.append(validator.validate(source.name, source.kind, rows, source.words, source.language))
    faults = [fault for source in params.curate.sources for fault in _faults(source, cleaned[source.name], suites)]
    folders = (REFUSED / "curated", REFUSED / "validated") if faults else (curated, validated)
    _write_tables(params, cleaned, folders[0])
    _write_validation(cleaned, suites, folders[1])
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        where = f"rows and results: {REFUSED} (open its validated/validation.html)"
        sys.exit(f"error: curated rows were refused\n{listed}\n  {where}")
    return _counts(cleaned)


def _records(source: Source) -> Any:
    from stages.corpus.sources import read_records, source_files

    return read_records(source.reader, source_files(source.files, source.packages), source.options)


def _origin(source: Source) -> dict[str, str]:
    return {"source": source.name, "kind": source.kind, "language": source.language, "license": source.license}


def _limits(source: Source, seed: int) -> Any:
    from stages.corpus.cleaning import Limits

    return Limits(source.words, source.splits.dev, source.splits.test, source.max_rows, seed)


def _faults(source: Source, cleaned: Any, suites: list[dict[str, Any]]) -> list[str]:
    """Why a source is refused, one line a fault; empty where it is accepted."""
    share = len(cleaned.rejected) / max(1, cleaned.num_read)
    faults = []
    if share > source.max_rejected_share:
        faults.append(
            f"{source.name}: {share:.1%} of {cleaned.num_read} rows rejected, max_rejected_share is "
            f"{source.max_rejected_share:.1%}; the reasons are in rejected.parquet"
        )
    suite = next(suite for suite in suites if suite["source"] == source.name)
    for outcome in suite["expectations"]:
        if not outcome["success"]:
            column = f"({outcome['column']})" if outcome["column"] else ""
            found = outcome["exception"] or (
                f"{outcome['unexpected_count']} of {suite['rows']} rows, such as {outcome['examples'][:3]}"
                if outcome["unexpected_count"]
                else f"observed {outcome['observed']}"
            )
            faults.append(f"{source.name}: {outcome['expectation']}{column}: {found}")
    return faults


def _write_tables(params: Params, cleaned: dict[str, Any], folder: Path) -> None:
    from stages.corpus.tables import REJECTED, SCHEMAS, SPLITS, write_table

    for kind, schema in SCHEMAS.items():
        of_kind = [cleaned[source.name] for source in params.curate.sources if source.kind == kind]
        for split in SPLITS:
            write_table(
                folder / kind / f"{split}.parquet", [row for one in of_kind for row in one.splits[split]], schema
            )
    write_table(folder / "rejected.parquet", [row for one in cleaned.values() for row in one.rejected], REJECTED)
    _write_json(folder / "counts.json", _counts(cleaned))


def _write_validation(cleaned: dict[str, Any], suites: list[dict[str, Any]], folder: Path) -> None:
    from stages.reporting.validation import render_validation

    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "success": all(suite["success"] for suite in suites),
        "suites": suites,
        "rejected": _rejected_by_reason(cleaned),
        "splits": [{"source": name, **rows} for name, rows in _counts(cleaned).items()],
    }
    _write_json(folder / "validation.json", result)
    (folder / "validation.html").write_text(render_validation(result), encoding="utf-8")


def _rejected_by_reason(cleaned: dict[str, Any]) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, one in cleaned.items():
        for row in one.rejected:
            grouped.setdefault((name, row["reason"]), []).append(" | ".join(row["texts"]))
    return [
        {"source": source, "reason": reason, "rows": len(texts), "examples": [text[:300] for text in texts[:3]]}
        for (source, reason), texts in sorted(grouped.items())
    ]


def _counts(cleaned: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        name: {split: len(rows) for split, rows in one.splits.items()}
        | {"read": one.num_read, "rejected": len(one.rejected)}
        for name, one in cleaned.items()
    }


def _flat(counts: dict[str, dict[str, int]]) -> list[tuple[str, str, int]]:
    return [(name, split, rows) for name, by_split in counts.items() for split, rows in by_split.items()]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
