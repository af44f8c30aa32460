"""Curation of all the sources of a recipe, as a stream: each is taken in, overlaps are rejected, the rest is written.

What is kept in memory is a few dozen bytes a row; texts and keys lie in a working folder meanwhile.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from stages.corpus.expectations import Validator
from stages.corpus.languages import LanguageCheck
from stages.corpus.overlaps import Overlaps, Similarity
from stages.corpus.profiles import Profile
from stages.corpus.quarantine import Quarantine
from stages.corpus.source_ingest import (
    KEPT,
    OVER_MAX_ROWS,
    Intake,
    Reasons,
    SourceToRead,
    reject_single_labels,
    take_in,
)
from stages.corpus.tables import SCHEMAS, SPLITS, TableWriter

# Rows that are validated at once.
VALIDATED_ROWS = 2**15


@dataclass(frozen=True)
class Curated:
    """What came of the sources; each by name."""

    counts: dict[str, dict[str, int]]  # train, dev, test, read, rejected
    rejected: dict[str, dict[str, int]]  # rows by reason
    suites: list[dict[str, Any]]  # see `Validator.validate`
    overlaps: list[dict[str, Any]]  # see `Overlaps.reject_given_away`
    profiles: dict[str, dict[str, Any]]  # see `Profile.summary`
    examples: list[dict[str, Any]]  # see `Quarantine.by_reason`


class _Output:
    """The files of the curated folder, open."""

    def __init__(self, folder: Path) -> None:
        self.quarantine = Quarantine(folder / "rejected.parquet")
        self._writers = {
            (kind, split): TableWriter(folder / kind / f"{split}.parquet", schema)
            for kind, schema in SCHEMAS.items()
            for split in SPLITS
        }

    def write(self, kind: str, rows: pa.Table, splits: np.ndarray) -> None:
        for number, split in enumerate(SPLITS):
            self._writers[kind, split].write(rows.filter(splits == number))

    def close(self) -> None:
        self.quarantine.close()
        for writer in self._writers.values():
            writer.close()


def curate_sources(
    sources: Sequence[SourceToRead],
    languages: LanguageCheck | None,
    across: Sequence[Sequence[str]],
    similar: Similarity,
    folder: Path,
    working: Path,
) -> Curated:
    """Write <kind>/<split>.parquet and rejected.parquet to a new folder.

    Args:
        languages: None where the language is not looked at.
        across, similar: see `Overlaps`.
        working: an empty folder for what is needed meanwhile, several times the size of the texts.

    Raises:
        ValueError: a source cannot be read; the message names it.
        FileNotFoundError: it is not there.
    """
    output, reasons, intakes = _Output(folder), Reasons(), []
    for source in _progress(sources, "read"):
        with _named(source.name):
            place = _new(working / "rows" / source.name)
            intakes.append(take_in(source, languages, place, output.quarantine, reasons))
    overlaps = Overlaps(intakes, across, similar, _new(working / "overlaps"))
    given_away = overlaps.reject_given_away(reasons)
    overlaps.reject_duplicates(reasons)
    for intake in intakes:
        if intake.origin["kind"] == "labelled":
            reject_single_labels(intake, reasons, "train")
    validator, suites, profiles = Validator(), [], {}
    for source, intake in zip(_progress(sources, "write"), intakes, strict=True):
        kind, language = source.origin["kind"], source.origin["language"]
        profile = Profile(kind, language, intake.fields, _new(working / "profiles" / source.name))
        written = _written(intake, output, profile, reasons)
        suites.append(validator.validate(written, source.origin, source.limits, profile.facts))
        profiles[source.name] = profile.summary()
    output.close()
    counts = {intake.origin["source"]: _counts(intake, output.quarantine) for intake in intakes}
    rejected = {name: output.quarantine.counts(name) for name in counts}
    return Curated(counts, rejected, suites, given_away, profiles, output.quarantine.by_reason())


def _written(intake: Intake, output: _Output, profile: Profile, reasons: Reasons) -> Iterator[pa.Table]:
    """Write what is kept and what is rejected of a source; gives the kept rows in larger pieces."""
    schema = SCHEMAS[intake.origin["kind"]]
    held: list[pa.Table] = []
    for where, table in intake.batches():
        fates = intake.fates[where]
        rejected = fates > OVER_MAX_ROWS
        for row, fate in zip(table.filter(rejected).to_pylist(), fates[rejected].tolist(), strict=True):
            texts = row["raw"] or [row[name] for name in intake.fields]
            output.quarantine.add(row["source"], intake.origin["kind"], reasons[fate], row["entity"], texts)
        kept, splits = table.filter(fates == KEPT), intake.splits[where][fates == KEPT]
        profile.add(kept, splits)
        rows = kept.select(schema.names)
        output.write(intake.origin["kind"], rows, splits)
        held.append(rows)
        if sum(map(len, held)) >= VALIDATED_ROWS:
            yield pa.concat_tables(held)
            held = []
    if sum(map(len, held)):
        yield pa.concat_tables(held)


def _counts(intake: Intake, quarantine: Quarantine) -> dict[str, int]:
    splits = intake.splits[intake.fates == KEPT]
    rejected = sum(quarantine.counts(intake.origin["source"]).values())
    rows = {split: int((splits == number).sum()) for number, split in enumerate(SPLITS)}
    return rows | {"read": intake.num_read, "rejected": rejected}


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _progress(sources: Sequence[SourceToRead], what: str) -> Iterator[SourceToRead]:
    with tqdm(sources, desc=what, unit="source") as bar:
        for source in bar:
            bar.set_postfix_str(source.name)
            yield source


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Errors of reading say which source they are of."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {source}: {error}") from error
    except ValueError as error:
        raise ValueError(f"source {source}: {error}") from error
    except (LookupError, OSError, ImportError) as error:
        raise ValueError(f"source {source}: {type(error).__name__}: {error}") from error
