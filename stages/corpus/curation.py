"""Curation of all sources of a recipe, as a stream: each is ingested, overlaps are rejected, and the rest is written.

In memory a row costs a few dozen bytes; texts and keys lie in a working folder meanwhile.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from stages.corpus.cleaning import SourceToRead
from stages.corpus.expectations import Validator
from stages.corpus.languages import LanguageCheck
from stages.corpus.negatives import ExplicitNegatives
from stages.corpus.overlaps import reject_near_duplicates, reject_test_overlaps
from stages.corpus.profiles import Profile
from stages.corpus.rejected_rows import KEPT, OVER_MAX_ROWS, Reasons, RejectedRows
from stages.corpus.source_ingest import SourceIngest, ingest, reject_single_labels
from stages.corpus.tables import SCHEMAS, SPLITS, TableWriter
from stages.corpus.text_index import TextIndex
from stages.recipe.curate import Curate

# Rows validated at once.
VALIDATED_ROWS = 2**15


@dataclass(frozen=True)
class Curated:
    """Results of curation by name of source."""

    counts: dict[str, dict[str, int]]  # rows of train, dev, test, and all read and rejected
    rejected: dict[str, dict[str, int]]  # rows by reason
    suites: list[dict[str, Any]]  # see `Validator.validate`
    overlaps: list[dict[str, Any]]  # see `reject_test_overlaps`
    profiles: dict[str, dict[str, Any]]  # see `Profile.summary`
    examples: list[dict[str, Any]]  # see `RejectedRows.by_reason`
    negatives: dict[str, dict[str, int]]  # explicit negatives that were kept, and those that were texts of test rows


class _Output:
    """The open files of the curated folder."""

    def __init__(self, folder: Path) -> None:
        self.rejected = RejectedRows(folder / "rejected.parquet")
        self._writers = {
            (kind, split): TableWriter(folder / kind / f"{split}.parquet", schema)
            for kind, schema in SCHEMAS.items()
            for split in SPLITS
        }

    def write(self, kind: str, rows: pa.Table, splits: np.ndarray) -> None:
        for number, split in enumerate(SPLITS):
            self._writers[kind, split].write(rows.filter(splits == number))

    def close(self) -> None:
        self.rejected.close()
        for writer in self._writers.values():
            writer.close()


def curate_sources(rules: Curate, sources: Sequence[SourceToRead], folder: Path, working: Path) -> Curated:
    """Write <kind>/<split>.parquet and rejected.parquet to a new folder.

    Args:
        rules: the recipe's section, whose sources are those to read.
        working: a new folder for temporary files, several times the size of the texts.

    Raises:
        ValueError: a source cannot be read; the message names it.
        FileNotFoundError: it is not there.
    """
    output, reasons, ingested = _Output(folder), Reasons(), []
    languages = None if rules.language_id is None else LanguageCheck(rules.language_id)
    for source in _progress(sources, "read"):
        with _named_errors(source.section.name):
            ingested.append(ingest(source, languages, working / "rows" / source.section.name, output.rejected, reasons))
    jaccard = min(rules.near_duplicates.jaccard, rules.evaluation_overlap.jaccard)
    index = TextIndex(ingested, jaccard, working / "texts")
    overlaps = reject_test_overlaps(index, rules.evaluation_overlap, reasons)
    reject_near_duplicates(index, rules.near_duplicates, reasons)
    for rows in ingested:
        if rows.section.kind == "labelled":
            reject_single_labels(rows, reasons, "train")
    validator, suites, profiles, negatives = Validator(), [], {}, ExplicitNegatives(ingested)
    for source, rows in zip(_progress(sources, "write"), ingested, strict=True):
        profile = Profile(source.section, working / "profiles" / source.section.name)
        written = _write(rows, output, profile, reasons, negatives)
        suites.append(validator.validate(source, written, profile.facts))
        profiles[source.section.name] = profile.summary()
    output.close()
    counts = {rows.section.name: _counts(rows, output.rejected) for rows in ingested}
    rejected = {name: output.rejected.counts(name) for name in counts}
    found = {name: dict(of_source) for name, of_source in negatives.counts.items()}
    return Curated(counts, rejected, suites, overlaps, profiles, output.rejected.by_reason(), found)


def _write(
    ingested: SourceIngest, output: _Output, profile: Profile, reasons: Reasons, negatives: ExplicitNegatives
) -> Iterator[pa.Table]:
    """Write the kept and the rejected rows of a source; yield the kept rows in larger tables for validation."""
    section = ingested.section
    held: list[pa.Table] = []
    for where, table in ingested.batches():
        status = ingested.row_status[where]
        rejected = status > OVER_MAX_ROWS
        for row, reason in zip(table.filter(rejected).to_pylist(), status[rejected].tolist(), strict=True):
            texts = row["raw"] or [row[name] for name in ingested.fields]
            output.rejected.add(section.name, section.kind, reasons[reason], row["entity"], texts)
        kept, splits = table.filter(status == KEPT), ingested.splits[where][status == KEPT]
        profile.add(kept, splits)
        if section.kind == "pairs":
            kept = negatives.without_tested(section.name, kept)
        held.append(kept.select(SCHEMAS[section.kind].names))
        output.write(section.kind, held[-1], splits)
        if sum(map(len, held)) >= VALIDATED_ROWS:
            yield pa.concat_tables(held)
            held = []
    if sum(map(len, held)):
        yield pa.concat_tables(held)


def _counts(ingested: SourceIngest, rejected: RejectedRows) -> dict[str, int]:
    splits = ingested.splits[ingested.kept_rows()]
    rows = {split: int((splits == number).sum()) for number, split in enumerate(SPLITS)}
    num_rejected = sum(rejected.counts(ingested.section.name).values())
    return rows | {"read": ingested.num_read, "rejected": num_rejected}


def _progress(sources: Sequence[SourceToRead], action: str) -> Iterator[SourceToRead]:
    with tqdm(sources, desc=action, unit="source") as bar:
        for source in bar:
            bar.set_postfix_str(source.section.name)
            yield source


@contextmanager
def _named_errors(source: str) -> Iterator[None]:
    """Put the source's name in front of the errors of reading it."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {source}: {error}") from error
    except ConnectionError as error:
        raise ConnectionError(f"source {source}: {error}") from error
    except ValueError as error:
        raise ValueError(f"source {source}: {error}") from error
    except (LookupError, OSError, ImportError) as error:
        raise ValueError(f"source {source}: {type(error).__name__}: {error}") from error
