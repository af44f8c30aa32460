"""Section `extend`: the long-context phase, in which stage 1 goes on with longer texts."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Positive, Section, Share
from stages.recipe.training import Draw, Schedule


class ExtendSchedule(Schedule):
    """A schedule that may have no steps."""

    steps: Annotated[int, Field(ge=0)] = Field(
        description="Number of updates of the weights; 0 leaves the phase out. The paper trains small for 6,500 steps "
        "and nano not at all (table A1)."
    )


class Extend(Section):
    """The mixture of long and short texts, and how the student is trained on it."""

    mixture: tuple[Draw, ...] = Field(
        description="Sources of any kind, read as `distill.sources` are. Each step draws one of them, with its own "
        "text length and batch size."
    )
    language_exponent: Share | None = Field(
        description="How a source of several languages is drawn: one language per batch, in proportion to its rows to "
        "the power of this value (1: as they come, 0: all alike; XLM-R, arXiv 1911.02116). Null mixes languages in a "
        "batch."
    )
    max_truncated_share: Share = Field(
        description="Share of a source's texts that may be longer than its `max_tokens`; a larger share stops the "
        "stage."
    )
    rope_theta: Positive | None = Field(
        description="Base of the rotary position embedding in this phase; null for a backbone without it. The paper "
        "lowers it to 500,000 for small (table A1)."
    )
    training: ExtendSchedule = Field(description="Schedule of the phase.")

    @model_validator(mode="after")
    def _check_mixture(self) -> Self:
        if self.training.steps and not self.mixture:
            raise ValueError("mixture: name a source to draw from, or set training.steps to 0 to leave this phase out")
        return self
