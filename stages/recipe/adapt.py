"""Section `adapt`: stage 2 of the paper, a LoRA adapter on the frozen student for each task that the recipe chooses.

A task whose sources are empty is absent: nothing is trained, released or measured for it.
"""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.json_schema import SkipJsonSchema

from stages.recipe.fields import TASKS, Count, Name, Names, NotNegative, Positive, Section, Share, Task, Tokens
from stages.recipe.training import BatchSchedule, Draw, Schedule


class Lora(Section):
    """Size of a LoRA adapter (arXiv 2106.09685)."""

    rank: Count = Field(description="Rank of the adapter's matrices; 32 in the paper.")
    alpha: Count = Field(description="Scale of the adapter: its output is multiplied by alpha / rank; 32 in the paper.")


class Adapter(Section):
    """Settings that the adapters of all tasks have."""

    lora: Lora = Field(description="Size of the adapter.")
    max_truncated_share: Share = Field(
        description="Share of the texts that may be longer than the adapter reads; a larger share stops the stage."
    )
    rope_theta: Positive | None = Field(
        description="Base of the rotary position embedding while the adapter is trained; null for a backbone without "
        "it. Table A1 has the paper's, one for each task."
    )


class Absent(Section):
    """A task that is not trained; any other key that it has is not read."""

    @model_validator(mode="before")
    @classmethod
    def _drop_other_keys(cls, values: Any) -> Any:
        return {key: values[key] for key in cls.model_fields} if isinstance(values, dict) else values


class FixedLengthAdapter(Adapter):
    """An adapter whose batches all have one text length and one size."""

    max_tokens: Tokens = Field(description="Tokens that the student reads of each text, its prefix included.")
    training: BatchSchedule = Field(description="Schedule and batch size.")


class RetrievalWeights(Section):
    """Weights of the three terms of the retrieval loss."""

    info_nce: NotNegative = Field(description="Weight of InfoNCE, equation (2); 1 in the paper.")
    distillation: NotNegative = Field(description="Weight of embedding distillation, equation (1); 2 in the paper.")
    spread_out: NotNegative = Field(
        description="Weight of the spread-out regulariser, equation (3), which keeps quality under binary "
        "quantisation; 1 in the paper."
    )


class Average(Section):
    """Mean of the last weights of the adapter and earlier ones, as in the paper."""

    earlier: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        description="Share of the steps after which the earlier weights are taken."
    )
    weight: Share = Field(description="Weight of the earlier weights in the mean; 0 keeps the last ones.")


class Retrieval(Adapter):
    """Adapter for retrieval, trained on queries, documents and mined hard negatives."""

    mixture: Annotated[tuple[Draw, ...], Field(min_length=1)] = Field(
        description="Sources of pairs, all of which are in `mine.sources`. Each step draws one of them. The paper's "
        "batches hold 256 or 384 pairs, 64 or 96 where texts are long, on each of 2 devices (table A1)."
    )
    language_exponent: Share | None = Field(description="As `extend.language_exponent`.")
    training: Schedule = Field(description="Schedule; the mixture gives the batch sizes.")
    num_negatives: Count = Field(
        description="Hard negatives of each query, at most `mine.num_negatives`; queries with fewer are left out."
    )
    temperature: Annotated[float, Field(ge=0.005, le=0.2)] = Field(
        description="Temperature with which InfoNCE starts; it is learned within these bounds. 0.02 in the paper."
    )
    false_negative_margin: Share | None = Field(
        description="Documents of the batch that the teacher scores above (1 - margin) times the positive are likely "
        "answers and are left out of a query's negatives (GISTEmbed, arXiv 2402.16829, has no margin); null keeps all."
    )
    weights: RetrievalWeights = Field(description="Weights of the terms of the loss.")
    average: Average = Field(description="Mean of the adapter's last and earlier weights.")


class AbsentRetrieval(Absent):
    """No adapter for retrieval."""

    mixture: tuple[()] = Field(description="Empty.")


class TextMatchingWeights(Section):
    """Weights of the terms of the text-matching loss; a batch is either scored or not."""

    cosent: NotNegative = Field(description="Weight of CoSENT, equation (5), on scored pairs.")
    info_nce: NotNegative = Field(description="Weight of InfoNCE, equation (2), on other pairs; 1 in the paper.")
    distillation: NotNegative = Field(
        description="Weight of embedding distillation, equation (1), on other pairs; 2 in the paper."
    )


class TextMatching(FixedLengthAdapter):
    """Adapter for text matching (semantic textual similarity), trained on scored pairs and on pairs without scores."""

    scored_sources: tuple[Name, ...] = Field(description="Sources of scored pairs; empty for none.")
    pair_sources: tuple[Name, ...] = Field(
        description="Sources of pairs without scores, such as paraphrases or translations; empty for none."
    )
    scored_share: Share = Field(
        description="Share of the steps that draw a batch of scored pairs, where there are pairs of both kinds."
    )
    temperature: Positive = Field(description="Temperature of InfoNCE on pairs without scores; 0.02 in the paper.")
    cosent_temperature: Positive = Field(description="Temperature tau' of CoSENT, equation (5); 0.05 in the paper.")
    weights: TextMatchingWeights = Field(description="Weights of the terms of the loss.")


class AbsentTextMatching(Absent):
    """No adapter for text matching."""

    scored_sources: tuple[()] = Field(description="Empty.")
    pair_sources: tuple[()] = Field(description="Empty.")


class AbsentSources(Absent):
    """No adapter for clustering, or for classification."""

    sources: tuple[()] = Field(description="Empty.")


class Clustering(FixedLengthAdapter):
    """Adapter for clustering: embedding distillation from the teacher under its clustering instruction."""

    sources: Names = Field(description="Sources of any kind; each text of a row is read by itself.")


class ClassificationWeights(Section):
    """Weights of the two terms of the classification loss."""

    info_nce: NotNegative = Field(description="Weight of InfoNCE in both directions, equation (7); 1 in the paper.")
    relational: NotNegative = Field(
        description="Weight of the relational regulariser against the student without the adapter, equation (8); 20 in "
        "the paper."
    )


class Classification(FixedLengthAdapter):
    """Adapter for classification, trained on an anchor, a text of its label, and texts of other labels."""

    sources: Names = Field(description="Sources of labelled texts.")
    num_negatives: Count = Field(description="Texts of other labels for each anchor, drawn at random; 7 in the paper.")
    temperature: Positive = Field(description="Temperature of InfoNCE; 0.02 in the paper.")
    weights: ClassificationWeights = Field(description="Weights of the terms of the loss.")


TaskSettings = Retrieval | TextMatching | Clustering | Classification
TRAINED, ABSENT = "trained", "absent"  # tags of an annotated choice; messages leave them out


def _chosen_by(*keys: str) -> Discriminator:
    """Tell an absent task by its lists of sources, all of which are written down and empty."""

    def kind(values: Any) -> str:
        is_absent = isinstance(values, Absent) or (
            isinstance(values, dict) and all(key in values and not values[key] for key in keys)
        )
        return ABSENT if is_absent else TRAINED

    return Discriminator(kind)


class Adapt(Section):
    """One section for each task. At least one task is trained; the others name no sources."""

    retrieval: Annotated[
        Annotated[Retrieval, Tag(TRAINED)] | Annotated[SkipJsonSchema[AbsentRetrieval], Tag(ABSENT)],
        _chosen_by("mixture"),
    ] = Field(description="Adapter for retrieval; `{mixture: []}` leaves it out.")
    text_matching: Annotated[
        Annotated[TextMatching, Tag(TRAINED)] | Annotated[SkipJsonSchema[AbsentTextMatching], Tag(ABSENT)],
        _chosen_by("scored_sources", "pair_sources"),
    ] = Field(
        alias="text-matching",
        description="Adapter for text matching; `{scored_sources: [], pair_sources: []}` leaves it out.",
    )
    clustering: Annotated[
        Annotated[Clustering, Tag(TRAINED)] | Annotated[SkipJsonSchema[AbsentSources], Tag(ABSENT)],
        _chosen_by("sources"),
    ] = Field(description="Adapter for clustering; `{sources: []}` leaves it out.")
    classification: Annotated[
        Annotated[Classification, Tag(TRAINED)] | Annotated[SkipJsonSchema[AbsentSources], Tag(ABSENT)],
        _chosen_by("sources"),
    ] = Field(description="Adapter for classification; `{sources: []}` leaves it out.")

    @property
    def trained(self) -> dict[Task, TaskSettings]:
        """Sections of the tasks that are trained, by task."""
        sections = zip(TASKS, (self.retrieval, self.text_matching, self.clustering, self.classification), strict=True)
        return {task: section for task, section in sections if not isinstance(section, Absent)}

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that are trained."""
        return tuple(self.trained)

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        if not self.tasks:
            raise ValueError("expected sources for at least one task, got none; give one of them its sources")
        return self
