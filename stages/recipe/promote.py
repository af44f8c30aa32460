"""Section `promote`: the registry, the gates and the sign-off."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Name, Positive, Section


class Gate(Section):
    min: float | None = None
    max: float | None = None
    low: float | None = None
    otherwise: Literal["refuse", "warn"] = "refuse"

    @model_validator(mode="after")
    def _limit_something(self) -> Self:
        if self.min is None and self.max is None and self.low is None:
            raise ValueError("a gate needs min, max or low, the least lower end of the interval")
        return self


class Promote(Section):
    registered_model: Name
    mode: Literal["disabled", "dry_run", "enabled"]
    gates: dict[str, Gate]
    allowed_licenses: Annotated[tuple[str, ...], Field(min_length=1)] | None
    signoff: Literal["automatic", "human"]
    approvals: Annotated[int, Field(ge=1, le=2)]
    signoff_hours: Positive

    @model_validator(mode="after")
    def _leave_approving_to_people(self) -> Self:
        if self.signoff == "automatic" and self.approvals > 1:
            raise ValueError(f"approvals: signoff automatic asks nobody, got {self.approvals}; set 1, or signoff human")
        return self
