"""Section `evaluate`: what the models are tested on."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from stages.recipe.fields import BatchSize, Count, Dims, Name, Names, NotNegative, Positive, Section, Share


def _whole(name: str) -> str:
    """YAML takes a name with a comma apart."""
    if name.count("(") != name.count(")"):
        raise ValueError('expected a whole name; put one with a comma in quotes, as "MTEB(eng, v2)"')
    return name


class Bm25(Section):
    k1: NotNegative
    b: Share


class EvaluateSources(Section):
    retrieval: Names
    unseen: tuple[Name, ...]
    text_matching: Annotated[Names, Field(alias="text-matching")]
    clustering: Names
    classification: Names


class EvaluateLong(Section):
    haystacks: Name | None
    articles: Name | None
    lengths: Dims
    num_documents: BatchSize
    rope_thetas: tuple[Positive, ...]


class EvaluateMteb(Section):
    tasks: tuple[Annotated[str, AfterValidator(_whole)], ...]
    folder: Path | None


class Evaluate(Section):
    sources: EvaluateSources
    mteb: EvaluateMteb
    long: EvaluateLong
    truncate_dims: Dims
    bm25: Bm25
    num_resamples: Count
