"""Builders of sources, and a source ingested into a folder, for the tests of this folder."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stages.corpus.cleaning import SourceToRead
from stages.corpus.records import Record, Row
from stages.corpus.rejected_rows import KEPT, OVER_MAX_ROWS, Reasons, RejectedRows
from stages.corpus.source_ingest import SourceIngest, ingest
from stages.corpus.tables import read_table
from stages.corpus.text_length import WORDS, Measure
from stages.recipe.curate import Source
from stages.recipe.fields import TEXT_FIELDS, Kind

ANY_LENGTH = [1, 400]


def fields(kind: Kind = "pairs", **changes: Any) -> dict[str, Any]:
    """The keys of a source in a recipe: English texts of any length, all of them for training."""
    keys = {
        "name": "wiki",
        "kind": kind,
        "reader": f"rows.{kind}",
        "files": ["rows.jsonl"],
        "packages": {},
        "options": {},
        "language": "en",
        "license": "MIT",
        "splits": {"dev": 0.0, "test": 0.0},
        "max_rows": None,
        "max_rejected_share": 1.0,
    }
    if "tokens" not in changes:
        keys["words"] = dict.fromkeys(TEXT_FIELDS[kind], ANY_LENGTH)
    return keys | changes


def section(kind: Kind = "pairs", **changes: Any) -> Source:
    """The section of a source."""
    return Source.model_validate(fields(kind, **changes))


def source(
    records: Iterable[Record], kind: Kind = "pairs", seed: int = 1, measure: Measure = WORDS, **changes: Any
) -> SourceToRead:
    """A source of records; `changes` are keys of its section."""
    return SourceToRead(section(kind, **changes), seed, lambda: records, measure)


def pair(query: str, document: str, entity: str = "e", **others: Any) -> Row:
    """A record of a pair."""
    return {"entity": entity, "query": query, "document": document, **others}


class Ingested:
    """A source ingested into a folder: its rows, and the reasons for which rows were rejected."""

    def __init__(self, source: SourceToRead, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rejected, self._reasons = RejectedRows(folder / "rejected.parquet"), Reasons()
        try:
            self.ingest: SourceIngest = ingest(source, None, folder, rejected, self._reasons)
        finally:
            rejected.close()
        self.clean = [row for _, table in self.ingest.batches() for row in table.to_pylist()]
        status = self.ingest.row_status.tolist()
        self.kept = [row for row, number in zip(self.clean, status, strict=True) if number == KEPT]
        self.rejected_by_cleaning = read_table(folder / "rejected.parquet").to_pylist()
        self.rejected_later = [self._reasons[number] for number in status if number > OVER_MAX_ROWS]


def reasons(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The reasons of rejected rows."""
    return [row["reason"] for row in rows]
