"""Section `extend`: the long-context phase."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Positive, Section, Share
from stages.recipe.training import Draw, Schedule


class ExtendSchedule(Schedule):
    steps: Annotated[int, Field(ge=0)]


class Extend(Section):
    mixture: tuple[Draw, ...]
    language_exponent: Share | None
    max_truncated_share: Share
    rope_theta: Positive | None
    training: ExtendSchedule

    @model_validator(mode="after")
    def _draw_from_something(self) -> Self:
        if self.training.steps and not self.mixture:
            raise ValueError("mixture: name a source to draw from, or set training.steps to 0 to leave this phase out")
        return self
