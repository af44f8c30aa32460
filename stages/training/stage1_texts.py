"""The texts of stage 1: on which side the student reads each column, and at which teacher vector it aims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.corpus.tables import read_table
from stages.modeling.encoder import Encoder
from stages.modeling.truncation import refuse_truncation, token_counts
from stages.recipe.fields import Kind
from stages.teachers.teacher_vectors import TeacherVectors


class ReadAs(NamedTuple):
    """A column, the side on which the student reads it, and the column whose teacher vector it aims at."""

    column: str
    side: str
    target: str


# A translation aims at the vector of the text that the teacher understands (Reimers and Gurevych, arXiv 2004.09813).
READ_AS: dict[Kind, tuple[ReadAs, ...]] = {
    "pairs": (ReadAs("query", "query", "query"), ReadAs("document", "document", "document")),
    "scored": (ReadAs("text_a", "document", "text_a"), ReadAs("text_b", "document", "text_b")),
    "labelled": (ReadAs("text", "document", "text"),),
    "documents": (ReadAs("text", "document", "text"),),
    "parallel": tuple(
        ReadAs(column, side, "text") for side in ("query", "document") for column in ("text", "translation")
    ),
}


@dataclass(frozen=True)
class Stage1Column:
    """One column of some rows of a kind, as the student reads it in stage 1."""

    kind: Kind
    read_as: ReadAs
    ids: list[str]
    texts: list[str]
    targets: list[str]  # the texts whose teacher vectors these texts aim at
    sources: list[str]
    languages: list[str]

    @property
    def text_ids(self) -> list[str]:
        """Names of the texts, for messages."""
        return [f"{row} ({self.read_as.column})" for row in self.ids]

    def teacher_vectors(self, vectors: TeacherVectors) -> np.ndarray:
        """Look up the teacher's vectors [N, T] float16 of the targets."""
        return vectors.of(self.read_as.side, self.targets, self.sources)


def stage1_columns(curated: Path, sources: Sequence[str]) -> list[Stage1Column]:
    """Read the train rows of sources of any kind, kind after kind; the columns of a kind have the same rows.

    Raises:
        ValueError: there are no such rows.
    """
    columns = []
    for kind, readings in READ_AS.items():
        table = read_table(curated / kind / "train.parquet", sources)
        values = table.to_pydict() if len(table) else {}
        columns += [
            Stage1Column(
                kind, read_as, values["id"], values[read_as.column], values[read_as.target], values["source"],
                values["language"],
            )
            for read_as in readings
            if values
        ]  # fmt: skip
    if not columns:
        raise ValueError(f"{curated}: no train rows of {list(sources)}; see its counts.json")
    return columns


def read_once(columns: Sequence[Stage1Column]) -> list[Stage1Column]:
    """Return columns without repeating those that are read on two sides; of these the document's side stays."""
    return list({(column.kind, column.read_as.column): column for column in columns}.values())


def check_columns(
    encoder: Encoder, columns: Sequence[Stage1Column], max_tokens: int, max_share: float, name: str
) -> None:
    """Stop stage 1 where more than `max_share` of the texts are cut at `max_tokens`; see `refuse_truncation`."""
    lengths = [length for column in columns for length in token_counts(encoder, column.texts, column.read_as.side)]
    refuse_truncation(lengths, max_tokens, max_share, name)
