"""Section `evaluate`: the texts and tasks on which the models are tested."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from stages.recipe.fields import BatchSize, Count, Increasing, Name, NotNegative, Positive, Section, Share


def _check_parentheses(name: str) -> str:
    # YAML splits an unquoted name at its comma.
    if name.count("(") != name.count(")"):
        raise ValueError('expected a whole name; put a name with a comma in quotes, as "MTEB(eng, v2)"')
    return name


class Bm25(Section):
    """Parameters of BM25, the lexical baseline, which `mine.candidates` may use too."""

    k1: NotNegative = Field(description="Saturation of term frequency; 1.5 is customary.")
    b: Share = Field(description="How strongly the length of a document counts; 0.75 is customary.")


class EvaluateSources(Section):
    """Sources of each task, whose test split is scored; a task without sources is not measured."""

    retrieval: tuple[Name, ...] = Field(description="Sources of pairs, scored by nDCG@10; empty for none.")
    unseen: tuple[Name, ...] = Field(
        description="Sources of pairs that no phase trains on, scored by nDCG@10; empty for none."
    )
    text_matching: Annotated[tuple[Name, ...], Field(alias="text-matching")] = Field(
        description="Sources of scored pairs, scored by the Spearman correlation of the cosines; empty for none."
    )
    clustering: tuple[Name, ...] = Field(description="Sources of labelled texts, scored by V-measure; empty for none.")
    classification: tuple[Name, ...] = Field(
        description="Sources of labelled texts, scored by the accuracy of a logistic regression on the embeddings; "
        "empty for none."
    )


class EvaluateMteb(Section):
    """Tasks of MTEB, beside the sources above."""

    tasks: tuple[Annotated[str, AfterValidator(_check_parentheses)], ...] = Field(
        description='Names of tasks or benchmarks, such as `[SciFact, STS12, "MTEB(eng, v2)"]`; empty for none.'
    )
    folder: Path | None = Field(
        description="Folder that holds their data sets in the hub's format; null reads them from the hub."
    )


class EvaluateLong(Section):
    """Retrieval of long documents by the student before and after the phase `extend`, at several lengths."""

    haystacks: Name | None = Field(
        description="Source of documents in which needles and pass keys are hidden, scored by nDCG@1; null for none."
    )
    articles: Name | None = Field(
        description="Source of pairs whose documents are sought by their first sentence, scored by nDCG@10; null for "
        "none. The teacher does not read it, so no other section may name it."
    )
    lengths: Increasing = Field(description="Lengths in tokens to which the documents are cut.")
    num_documents: BatchSize = Field(description="Haystacks, each with one needle and one pass key.")
    rope_thetas: tuple[Positive, ...] = Field(
        description="Bases of the rotary position embedding to try, beside those of training and release."
    )


class Evaluate(Section):
    """The test of teacher, base model, adapters and baselines."""

    sources: EvaluateSources = Field(description="Sources whose test split each task is scored on.")
    mteb: EvaluateMteb = Field(description="Tasks of MTEB.")
    long: EvaluateLong = Field(description="Retrieval of long documents.")
    truncate_dims: Increasing = Field(description="Lengths of the vector's prefixes that are scored.")
    bm25: Bm25 = Field(description="Parameters of BM25.")
    num_resamples: Count = Field(description="Bootstrap resamples of the test sets behind each 95 % interval.")
