"""Section `mine`: hard negatives for the retrieval adapter."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Count, Names, NotNegative, Range, Section, Share


class Mine(Section):
    sources: Names
    candidates: Annotated[tuple[Literal["teacher", "bm25", "student"], ...], Field(min_length=1)]
    student: str | None
    num_negatives: Count
    rank_window: Range
    relative_margin: Share
    absolute_margin: NotNegative | None
    num_examples: Count

    @model_validator(mode="after")
    def _name_a_student(self) -> Self:
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"candidates: each list once, got {list(self.candidates)}")
        if ("student" in self.candidates) != (self.student is not None):
            raise ValueError(
                f"student: candidates {list(self.candidates)} and student {self.student!r}; give the folder of an "
                "earlier build's merged/retrieval and name student among the candidates, or neither"
            )
        return self
