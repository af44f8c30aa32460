"""Which columns of which sources a teacher reads, and as what; and their texts, a batch at a time."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stages.corpus.tables import SPLITS, read_texts
from stages.teachers.teacher_vectors import Readings
from stages.teachers.vector_store import Reading


class Want(NamedTuple):
    """A column of some sources of one kind, read as `side`: `query`, `document` or `clustering`."""

    kind: str
    column: str
    side: str
    sources: tuple[str, ...]


def wanted_columns(
    kinds: Mapping[str, str], *, left_out: str | None, pair_sources: Iterable[str], clustering_sources: Iterable[str]
) -> list[Want]:
    """What the teacher reads of a recipe's sources.

    Retrieval pairs are read as query and document; text matching reads both sides as documents, clustering both sides
    under its own instruction. What only the student is measured on is left out: `documents`, and one source of pairs.

    Args:
        kinds: kind of each source.
        left_out: the source of pairs that only the student is measured on.
        pair_sources: of text matching.
        clustering_sources: of clustering.
    """
    of_kind = {kind: tuple(name for name in kinds if kinds[name] == kind) for kind in ("pairs", "scored", "labelled")}
    pairs = tuple(name for name in of_kind["pairs"] if name != left_out)
    return [
        Want("pairs", "query", "query", pairs),
        Want("pairs", "document", "document", pairs),
        Want("pairs", "query", "document", tuple(pair_sources)),
        Want("pairs", "query", "clustering", tuple(clustering_sources)),
        Want("pairs", "document", "clustering", tuple(clustering_sources)),
        Want("scored", "text_a", "document", of_kind["scored"]),
        Want("scored", "text_b", "document", of_kind["scored"]),
        Want("labelled", "text", "document", of_kind["labelled"]),
    ]


class Texts(NamedTuple):
    """Texts of one column, read in one way."""

    side: str
    reading: Reading
    texts: list[str]


def wanted_texts(curated: Path, wants: Iterable[Want], readings: Readings) -> Iterator[Texts]:
    """The texts that are wanted, in the order of the wants and the tables; one may come several times."""
    for want in wants:
        for source, split in itertools.product(want.sources, SPLITS):
            reading = readings.of(want.side, source)
            for texts in read_texts(curated / want.kind / f"{split}.parquet", want.column, source):
                yield Texts(want.side, reading, texts)
