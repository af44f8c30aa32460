"""Field types that several sections share, and the base class of every section."""

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Threshold = Annotated[float, Field(ge=0.5, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
# A `rule` puts a check into words for the reference of the recipe.
Name = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", json_schema_extra={"rule": "lower-case letters, digits, `.` and `-`"}),
]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Tokens = Annotated[int, Field(ge=4)]
BatchSize = Annotated[int, Field(ge=2)]

_LANGUAGE = r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?"
Language = Annotated[
    str,
    Field(
        pattern=rf"^{_LANGUAGE}(-{_LANGUAGE})?$",
        json_schema_extra={"rule": "ISO 639 code, with script and region where needed, or a pair of them"},
    ),
]

Pooling = Literal["last", "mean", "cls"]
Task = Literal["retrieval", "text-matching", "clustering", "classification"]
TASKS: tuple[Task, ...] = ("retrieval", "text-matching", "clustering", "classification")
Kind = Literal["pairs", "scored", "labelled", "documents", "parallel"]
TEXT_FIELDS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("query", "document"),
    "scored": ("text_a", "text_b"),
    "labelled": ("text",),
    "documents": ("text",),
    "parallel": ("text", "translation"),
}


def _check_range(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= bounds[0] <= bounds[1]:
        raise ValueError(f"expected [least, most] with 1 <= least <= most, got {list(bounds)}")
    return bounds


def _check_increasing(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers or min(numbers) < 1 or any(left >= right for left, right in itertools.pairwise(numbers)):
        raise ValueError(f"expected increasing positive numbers, got {list(numbers)}")
    return numbers


Range = Annotated[tuple[int, int], AfterValidator(_check_range), Field(json_schema_extra={"rule": "`[least, most]`"})]
Increasing = Annotated[
    tuple[int, ...], AfterValidator(_check_increasing), Field(json_schema_extra={"rule": "increasing"})
]


class Section(BaseModel):
    """A part of a recipe. Unknown keys are refused, and nothing changes after reading.

    Every key is required, except `words` or `tokens` of a source, and `min`, `max`, `low` and `otherwise` of a gate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
