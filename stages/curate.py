"""Curate: read the recipe's sources, and write clean and validated rows, split by entity.

Writes data/curated: <kind>/<split>.parquet, rejected.parquet, counts.json and metrics.json; and data/validated:
validation.json and validation.html. Where the validation refuses the rows, both are under .stillhouse/refused instead,
where no run of DVC removes them. Profiles of the last accepted rows are under .stillhouse/profiles.
"""

if __name__ == "__main__":  # The entry checks the recipe before anything heavy is imported.
    from stages.entry import run_stage

    run_stage("curate")

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.corpus.curation import Curated, curate_sources
from stages.corpus.feasibility import long_shortages, shortages
from stages.corpus.profiles import drift, earlier, remember
from stages.corpus.refusals import refusals
from stages.corpus.sources import source_to_read
from stages.recipe.paths import CURATED, REFUSED, STATE, VALIDATED
from stages.recipe.recipe import Recipe
from stages.reporting.validation import render_validation
from stages.tracking.runs import stage_run


def main(recipe: Recipe) -> None:
    """Run the stage."""
    recorded = recipe.model_dump(include={"name", "seed", "curate"})
    try:
        with stage_run(stage="curate", params=recorded, inputs=[]) as run:
            counts = curate(recipe)
            run.log_metrics({f"{name}.{split}": rows for name, of in counts.items() for split, rows in of.items()})
            for page in (CURATED / "metrics.json", VALIDATED / "validation.json", VALIDATED / "validation.html"):
                run.log_artifact(page)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")


def curate(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Curate every source; return the rows by source and split.

    Raises:
        SystemExit: a source or a test set was refused; the message says why, and where the rows are.
        ValueError, FileNotFoundError: a source cannot be read; the message names it.
        ModuleNotFoundError: a source's package is not installed; the message says how to install it.
    """
    working, profiles = STATE / "curating", STATE / "profiles" / f"{recipe.name}.json"
    shutil.rmtree(working, ignore_errors=True)
    try:
        student = recipe.distill.backbone.path
        sources = [source_to_read(section, recipe.seed, student) for section in recipe.curate.sources]
        curated = curate_sources(recipe.curate, sources, working / "curated", working / "temporary")
        faults = refusals(recipe.curate, curated)
        faults += shortages(recipe.curate.sources, recipe.evaluate.sources, working / "curated")
        faults += long_shortages(recipe.evaluate.long, working / "curated")
        _write_json(working / "curated" / "counts.json", curated.counts)
        _write_json(working / "curated" / "metrics.json", _metrics(curated))
        _write_validation(working / "validated", curated, _drift(curated, profiles), success=not faults)
        for name, folder in (("curated", CURATED), ("validated", VALIDATED)):
            _replace(working / name, REFUSED / name if faults else folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        where = f"the rows are in {REFUSED}; open {REFUSED}/validated/validation.html"
        sys.exit(f"error: curated rows were refused\n{listed}\n  {where}")
    remember(profiles, curated.profiles)
    return curated.counts


def _metrics(curated: Curated) -> dict[str, Any]:
    """Return the figures of curation, the content of metrics.json."""
    return {
        "rows": curated.counts,
        "rejected": curated.rejected,
        **({"explicit_negatives": curated.negatives} if curated.negatives else {}),
        "evaluation_overlap": {test["source"]: round(test["share"], 6) for test in curated.overlaps},
    }


def _drift(curated: Curated, profiles: Path) -> list[dict[str, Any]]:
    """Compare each source with its version in the last accepted build of other content."""
    before = earlier(profiles, curated.profiles)
    return [
        {"source": source, **drift(before[source], profile)}
        for source, profile in curated.profiles.items()
        if source in before
    ]


def _write_validation(folder: Path, curated: Curated, changes: list[dict[str, Any]], *, success: bool) -> None:
    folder.mkdir(parents=True)
    result = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "success": success,
        "suites": curated.suites,
        "rejected": curated.examples,
        "splits": [{"source": name, **rows} for name, rows in curated.counts.items()],
        "overlaps": curated.overlaps,
        "profiles": [{"source": name, **profile} for name, profile in curated.profiles.items()],
        "drift": changes,
    }
    _write_json(folder / "validation.json", result)
    (folder / "validation.html").write_text(render_validation(result), encoding="utf-8")


def _replace(made: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, folder)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    path.write_text(f"{text}\n", encoding="utf-8")
