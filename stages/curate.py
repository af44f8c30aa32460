"""Curate: sources in, clean and validated rows out, split by entity. `--preview` shows a sample and writes nothing.

Writes data/curated: <kind>/<split>.parquet, rejected.parquet, counts.json and metrics.json; and data/validated:
validation.json and validation.html. Rows that the validation refuses are kept under .stillhouse/refused, where no run
of DVC removes them; what the last accepted rows were like, under .stillhouse/profiles.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.curate import Source
from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    from stages.corpus.curation import Curated
    from stages.corpus.languages import LanguageCheck
    from stages.corpus.source_ingest import SourceToRead
    from stages.corpus.text_length import Measure

CURATED = Path("data/curated")
VALIDATED = Path("data/validated")
STATE = Path(".stillhouse")
REFUSED = STATE / "refused"


def main() -> None:
    """Run the stage, or show what it would read."""
    parser = argparse.ArgumentParser(prog="python -m stages.curate", description=__doc__)
    parser.add_argument(
        "--preview",
        nargs="*",
        metavar="SOURCE",
        help="ten parsed rows of each of these sources, or of all, and what would be rejected",
    )
    previewed = parser.parse_args().preview
    params = load()
    try:
        if previewed is None:
            _run(params)
        elif not preview(params, previewed):
            sys.exit(1)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")


def _run(params: Recipe) -> None:
    from stages.tracking.runs import stage_run

    with stage_run(stage="curate", params=params.model_dump(include={"name", "seed", "curate"}), inputs=[]) as run:
        counts = curate(params, CURATED, VALIDATED)
        run.log_metrics(
            {f"{name}.{split}": rows for name, by_split in counts.items() for split, rows in by_split.items()}
        )
        for page in (CURATED / "metrics.json", VALIDATED / "validation.json", VALIDATED / "validation.html"):
            run.log_artifact(page)


def curate(params: Recipe, curated: Path, validated: Path) -> dict[str, dict[str, int]]:
    """Curate every source; returns rows by source and split.

    Raises:
        SystemExit: a source was refused; names the expectation, the rows and where to read them.
        ValueError, FileNotFoundError: a source cannot be read; names it.
    """
    working = STATE / "curating"
    shutil.rmtree(working, ignore_errors=True)
    try:
        found = _curate(params, working)
        faults = [fault for source in params.curate.sources for fault in _faults(source, found)]
        faults += _overlap_faults(params, found)
        _write_json(working / "curated" / "counts.json", found.counts)
        _write_json(working / "curated" / "metrics.json", _metrics(found))
        _write_validation(found, _changes(found, params.name), not faults, working / "validated")
        for name, folder in (("curated", curated), ("validated", validated)):
            _replace(working / name, REFUSED / name if faults else folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        where = f"rows and results: {REFUSED} (open its validated/validation.html)"
        sys.exit(f"error: curated rows were refused\n{listed}\n  {where}")
    _remember(found, params.name)
    return found.counts


def _curate(params: Recipe, working: Path) -> "Curated":
    from stages.corpus.curation import curate_sources
    from stages.corpus.overlaps import Similarity

    rules = params.curate
    overlap = rules.evaluation_overlap
    return curate_sources(
        [_to_read(source, params) for source in rules.sources],
        _languages(params),
        rules.near_duplicates.across,
        Similarity(rules.near_duplicates.jaccard, overlap.jaccard, overlap.containment),
        working / "curated",
        working / "meanwhile",
    )


def preview(params: Recipe, names: Sequence[str] = ()) -> bool:
    """Print the first rows of some sources or of all, and what would be rejected of some more; whether all can be read.

    Raises:
        ValueError: a name is no source's.
    """
    sources = {source.name: source for source in params.curate.sources}
    if unknown := sorted(set(names) - sources.keys()):
        raise ValueError(f"--preview: {unknown} are not sources of the recipe; those are {list(sources)}")
    from stages.corpus.previews import preview_source

    languages, readable = _languages(params), True
    for source in [sources[name] for name in names or sources]:
        try:
            print(preview_source(_to_read(source, params), languages), flush=True)
        except (ValueError, OSError, LookupError, ImportError) as error:
            print(f"== {source.name}: cannot be read: {error}\n", flush=True)
            readable = False
    return readable


def _to_read(source: Source, params: Recipe) -> "SourceToRead":
    from stages.corpus.cleaning import Limits
    from stages.corpus.source_ingest import SourceToRead
    from stages.corpus.sources import read_records, source_files

    origin = {"source": source.name, "kind": source.kind, "language": source.language, "license": source.license}
    splits, measure = source.splits, _measure(source, params)
    limits = Limits(source.lengths, splits.dev, splits.test, source.max_rows, params.seed, measure)
    return SourceToRead(
        origin,
        limits,
        lambda: read_records(source.reader, source_files(source.files, source.packages), source.options),
    )


def _measure(source: Source, params: Recipe) -> "Measure":
    """What a source's lengths are counted in; tokens are the student's."""
    from stages.corpus.text_length import WORDS, tokens_of
    from stages.teachers.fingerprint import local_folder

    return WORDS if source.tokens is None else tokens_of(local_folder(params.distill.backbone.path))


def _languages(params: Recipe) -> "LanguageCheck | None":
    from stages.corpus.languages import LanguageCheck

    rules = params.curate.language_id
    return None if rules is None else LanguageCheck(rules.min_words, rules.min_confidence)


def _faults(source: Source, found: "Curated") -> list[str]:
    """Why a source is refused, one line a fault; empty where it is accepted."""
    counts, faults = found.counts[source.name], []
    share = counts["rejected"] / max(1, counts["read"])
    if share > source.max_rejected_share:
        most = sorted(found.rejected[source.name].items(), key=lambda one: -one[1])[:3]
        faults.append(
            f"{source.name}: {share:.1%} of {counts['read']} rows rejected, max_rejected_share is "
            f"{source.max_rejected_share:.1%}; {', '.join(f'{reason} ({rows})' for reason, rows in most)}"
        )
    suite = next(suite for suite in found.suites if suite["source"] == source.name)
    unmet = [outcome for outcome in suite["expectations"] if not outcome["success"]]
    return faults + [f"{source.name}: {_fault(outcome, suite['rows'])}" for outcome in unmet]


def _fault(outcome: dict[str, Any], rows: int) -> str:
    named = outcome["expectation"] + (f"({outcome['column']})" if outcome["column"] else "")
    if outcome["exception"]:
        return f"{named}: could not be checked, which says nothing of the data: {outcome['exception']}"
    if outcome["unexpected_count"]:
        return f"{named}: {outcome['unexpected_count']} of {rows} rows, such as {outcome['examples'][:3]}"
    limits = {name: limit for name, limit in outcome["kwargs"].items() if name in ("min_value", "max_value")}
    return f"{named}: observed {outcome['observed']}, expected {limits}"


def _overlap_faults(params: Recipe, found: "Curated") -> list[str]:
    most = params.curate.evaluation_overlap.max_share
    return [
        f"{one['source']}: {one['share']:.1%} of its {one['rows']} test rows stand in train or dev too ({one['exact']} "
        f"exactly, {one['near']} nearly), evaluation_overlap.max_share is {most:.1%}; they were taken out of train and "
        "dev: see rejected.parquet; allow more, or split by an entity that keeps such rows together"
        for one in found.overlaps
        if one["share"] > most
    ]


def _metrics(found: "Curated") -> dict[str, Any]:
    """What `dvc metrics diff` shows of curation."""
    return {
        "rows": found.counts,
        "rejected": found.rejected,
        "evaluation_overlap": {one["source"]: round(one["share"], 6) for one in found.overlaps},
    }


def _changes(found: "Curated", name: str) -> list[dict[str, Any]]:
    """How each source differs from the last version of it that was accepted here and was another."""
    from stages.corpus.profiles import drift, earlier

    before = earlier(STATE / "profiles" / f"{name}.json", found.profiles)
    return [
        {"source": source, **drift(before[source], profile)}
        for source, profile in found.profiles.items()
        if source in before
    ]


def _remember(found: "Curated", name: str) -> None:
    from stages.corpus.profiles import remember

    remember(STATE / "profiles" / f"{name}.json", found.profiles)


def _write_validation(found: "Curated", changes: list[dict[str, Any]], success: bool, folder: Path) -> None:
    from stages.reporting.validation import render_validation

    folder.mkdir(parents=True)
    result = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "success": success,
        "suites": found.suites,
        "rejected": found.examples,
        "splits": [{"source": name, **rows} for name, rows in found.counts.items()],
        "overlaps": found.overlaps,
        "profiles": [{"source": name, **profile} for name, profile in found.profiles.items()],
        "drift": changes,
    }
    _write_json(folder / "validation.json", result)
    (folder / "validation.html").write_text(render_validation(result), encoding="utf-8")


def _replace(made: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, folder)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
