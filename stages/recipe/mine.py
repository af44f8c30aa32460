"""Section `mine`: hard negatives for the retrieval adapter."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Count, Name, NotNegative, Range, Section, Share


class Mine(Section):
    """Candidates for hard negatives, and the teacher's margins below which they are taken."""

    sources: tuple[Name, ...] = Field(
        description="Sources of pairs; each query's negatives are documents of its own source. Empty where no adapter "
        "for retrieval is trained."
    )
    candidates: Annotated[tuple[Literal["teacher", "bm25", "student"], ...], Field(min_length=1)] = Field(
        description="Ranked lists that candidates are taken from, in turns: the documents nearest to the query for the "
        "teacher, for BM25, or for the student of an earlier build."
    )
    student: str | None = Field(
        description="Folder `merged/retrieval` of an earlier build, for the list of the student; else null."
    )
    num_negatives: Count = Field(description="Most hard negatives of a query.")
    rank_window: Range = Field(
        description="First and last rank of the lists from which candidates are taken; rank 1 is the nearest document."
    )
    relative_margin: Share = Field(
        description="A negative scores at most (1 - margin) times the score of the query's own document, by the "
        "teacher, as in NV-Retriever (arXiv 2407.15831)."
    )
    absolute_margin: NotNegative | None = Field(
        description="A negative also scores at least this much below the query's own document, by the teacher; null "
        "for no such limit."
    )
    consistency: dict[str, Count] = Field(
        description="Source -> last rank. A training pair of the source is left out of the retrieval adapter where the "
        "teacher ranks the query's own document lower among the source's documents, and so is a question that a model "
        "wrote out of the evaluation. Empty where nothing is left out."
    )
    num_examples: Count = Field(description="Example rows on the page data/mined/audit.html.")

    @model_validator(mode="after")
    def _check_candidates(self) -> Self:
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"candidates: expected each list once, got {list(self.candidates)}")
        unmined = sorted(set(self.consistency) - set(self.sources))
        if unmined:
            raise ValueError(
                f"consistency: got {unmined}, expected sources of mine.sources, {list(self.sources)}; add them there, "
                "or remove them here"
            )
        if ("student" in self.candidates) != (self.student is not None):
            raise ValueError(
                f"student: got candidates {list(self.candidates)} and student {self.student!r}; name student among the "
                "candidates and give the folder merged/retrieval of an earlier build, or neither"
            )
        return self
