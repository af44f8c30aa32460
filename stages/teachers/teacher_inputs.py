"""Which columns of which sources the teacher reads, on which side, and their texts, a batch at a time."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.corpus.tables import SPLITS, read_texts
from stages.recipe.adapt import Adapt
from stages.recipe.curate import Curate
from stages.recipe.embed import Embed
from stages.recipe.evaluate import Evaluate
from stages.recipe.fields import TEXT_FIELDS
from stages.teachers.teacher import ReadingRule, reading_rule

# The columns of each kind that the teacher understands: it does not know the language of translations.
UNDERSTOOD = TEXT_FIELDS | {"parallel": ("text",)}


class TeacherInput(NamedTuple):
    """A column of some sources of one kind that the teacher reads on a side: `query`, `document` or `clustering`."""

    kind: str
    column: str
    side: str
    sources: tuple[str, ...]


class TextBatch(NamedTuple):
    """Texts of one column, read by one rule."""

    side: str
    rule: ReadingRule
    texts: list[str]


def teacher_inputs(curate: Curate, adapt: Adapt, evaluate: Evaluate) -> list[TeacherInput]:
    """List what the teacher reads of a recipe's sources.

    It reads retrieval pairs as query and document, and their explicit negatives as documents. Text matching reads both
    sides as documents, clustering all texts under its own instruction. Of parallel texts the teacher reads the first
    alone, on both sides. It does not read the sources of `evaluate.long`, on which only students are measured.
    """

    def of_kind(kind: str) -> tuple[str, ...]:
        names = (source.name for source in curate.sources if source.kind == kind)
        return tuple(name for name in names if name not in (evaluate.long.articles, evaluate.long.haystacks))

    matching = adapt.text_matching.pair_sources
    clustering = [
        TeacherInput(
            kind, column, "clustering", tuple(name for name in adapt.clustering.sources if name in of_kind(kind))
        )
        for kind, columns in UNDERSTOOD.items()
        for column in columns
    ]
    return [
        TeacherInput("pairs", "query", "query", of_kind("pairs")),
        TeacherInput("pairs", "document", "document", of_kind("pairs")),
        TeacherInput("pairs", "query", "document", matching),
        *(read for read in clustering if read.sources),
        TeacherInput("scored", "text_a", "document", of_kind("scored")),
        TeacherInput("scored", "text_b", "document", of_kind("scored")),
        TeacherInput("labelled", "text", "document", of_kind("labelled")),
        TeacherInput("documents", "text", "document", of_kind("documents")),
        TeacherInput("parallel", "text", "query", of_kind("parallel")),
        TeacherInput("parallel", "text", "document", of_kind("parallel")),
    ]


def read_inputs(inputs: Sequence[TeacherInput], curated: Path, embed: Embed) -> Iterator[TextBatch]:
    """Yield texts in the order of inputs, sources, splits and rows; a text may come several times."""
    for kind, column, side, sources in inputs:
        for source, split in itertools.product(sources, SPLITS):
            rule = reading_rule(embed, side, source)
            for texts in read_texts(curated / kind / f"{split}.parquet", column, source):
                yield TextBatch(side, rule, texts)
            if (kind, column, split) == ("pairs", "document", "train") and side == "document":
                for texts in read_texts(curated / kind / f"{split}.parquet", "negatives", source):
                    yield TextBatch(side, rule, texts)
