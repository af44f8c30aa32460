"""Section `promote`: the model registry, the gates of a release and its sign-off."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Name, Positive, Section


class Gate(Section):
    """Limits of one figure, all inclusive. At least one of `min`, `max` and `low` is given."""

    min: float | None = Field(default=None, description="Least value of the figure.")
    max: float | None = Field(default=None, description="Greatest value of the figure.")
    low: float | None = Field(
        default=None,
        description="Least lower end of the figure's 95 % interval; of a figure without an interval, its least value.",
    )
    otherwise: Literal["refuse", "warn"] = Field(
        default="refuse", description="Whether a release outside the limits is refused, or only reported."
    )

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.min is None and self.max is None and self.low is None:
            raise ValueError("expected a limit: give min, max, or low (the least lower end of the interval)")
        return self


class Promote(Section):
    """How a release is registered, judged and signed off."""

    registered_model: Name = Field(description="Name of the model in MLflow's registry.")
    mode: Literal["disabled", "dry_run", "enabled"] = Field(
        description="`enabled` judges the gates and refuses; `dry_run` judges and refuses nothing; `disabled` does not "
        "judge."
    )
    gates: dict[str, Gate] = Field(
        description="Limits by the name of a figure of the evaluation, such as `retrieval_retention: {min: 0.9}`."
    )
    allowed_licenses: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        description="Licences of sources that the gate `licenses_not_allowed` accepts; null accepts every stated one."
    )
    signoff: Literal["automatic", "human"] = Field(
        description="Who makes a release the champion: `automatic` does where no gate refuses it; `human` waits for "
        "people."
    )
    approvals: Annotated[int, Field(ge=1, le=2)] = Field(
        description="Number of people, of different names, who have to approve; 1 where the sign-off is automatic."
    )
    signoff_hours: Positive = Field(description="Hours that the release flow waits for each of them.")

    @model_validator(mode="after")
    def _check_approvals(self) -> Self:
        if self.signoff == "automatic" and self.approvals > 1:
            raise ValueError(
                f"approvals: expected 1, since signoff automatic asks nobody, got {self.approvals}; set approvals to "
                "1, or signoff to human"
            )
        return self
