"""Section `adapt`: stage 2, one LoRA adapter for each task."""

from typing import Annotated

from pydantic import Field

from stages.recipe.fields import Count, Names, NotNegative, Positive, Section, Share, Tokens
from stages.recipe.training import BatchSchedule, Draw, Schedule


class Lora(Section):
    rank: Count
    alpha: Count


class Adapter(Section):
    lora: Lora
    max_truncated_share: Share
    rope_theta: Positive | None


class FixedLengthAdapter(Adapter):
    max_tokens: Tokens
    training: BatchSchedule


class RetrievalWeights(Section):
    info_nce: NotNegative
    distillation: NotNegative
    spread_out: NotNegative


class Average(Section):
    earlier: Annotated[float, Field(gt=0.0, lt=1.0)]
    weight: Share


class Retrieval(Adapter):
    mixture: Annotated[tuple[Draw, ...], Field(min_length=1)]
    language_exponent: Share | None
    training: Schedule
    num_negatives: Count
    temperature: Annotated[float, Field(ge=0.005, le=0.2)]  # it is learned, within these bounds
    false_negative_margin: Share | None
    weights: RetrievalWeights
    average: Average


class TextMatchingWeights(Section):
    cosent: NotNegative
    info_nce: NotNegative
    distillation: NotNegative


class TextMatching(FixedLengthAdapter):
    scored_sources: Names
    pair_sources: Names
    scored_share: Share
    temperature: Positive
    cosent_temperature: Positive
    weights: TextMatchingWeights


class Clustering(FixedLengthAdapter):
    sources: Names


class ClassificationWeights(Section):
    info_nce: NotNegative
    relational: NotNegative


class Classification(FixedLengthAdapter):
    sources: Names
    num_negatives: Count
    temperature: Positive
    weights: ClassificationWeights


class Adapt(Section):
    retrieval: Retrieval
    text_matching: Annotated[TextMatching, Field(alias="text-matching")]
    clustering: Clustering
    classification: Classification
