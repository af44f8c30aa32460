"""Types that fields of several sections share, and the base class of every section."""

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Similar = Annotated[float, Field(ge=0.5, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
_LANGUAGE = r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?"
Language = Annotated[str, Field(pattern=rf"^{_LANGUAGE}(-{_LANGUAGE})?$")]
Task = Literal["retrieval", "text-matching", "clustering", "classification"]
TASKS: tuple[Task, ...] = ("retrieval", "text-matching", "clustering", "classification")
Kind = Literal["pairs", "scored", "labelled", "documents"]
TEXT_FIELDS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("query", "document"),
    "scored": ("text_a", "text_b"),
    "labelled": ("text",),
    "documents": ("text",),
}


def _range(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= bounds[0] <= bounds[1]:
        raise ValueError(f"expected [least, most] with 1 <= least <= most, got {list(bounds)}")
    return bounds


def _increasing(dims: tuple[int, ...]) -> tuple[int, ...]:
    if not dims or min(dims) < 1 or any(left >= right for left, right in itertools.pairwise(dims)):
        raise ValueError(f"expected increasing positive dimensions, got {list(dims)}")
    return dims


Range = Annotated[tuple[int, int], AfterValidator(_range)]
Dims = Annotated[tuple[int, ...], AfterValidator(_increasing)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Tokens = Annotated[int, Field(ge=4)]
BatchSize = Annotated[int, Field(ge=2)]


class Section(BaseModel):
    """A part of a recipe: every key required, none unknown, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
