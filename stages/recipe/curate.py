"""Section `curate`: the sources of text and what is accepted of them."""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.recipe.fields import TEXT_FIELDS, Count, Kind, Language, Name, Range, Section, Share, Similar


class Splits(Section):
    dev: Share
    test: Share

    @model_validator(mode="after")
    def _leave_no_negative_train(self) -> Self:
        if self.dev + self.test > 1:
            raise ValueError(f"dev and test are shares of one whole, got {self.dev} + {self.test}")
        return self


class Source(Section):
    name: Name
    kind: Kind
    reader: str
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    packages: dict[str, str]
    options: dict[str, float | str]
    language: Language
    license: str
    splits: Splits
    words: dict[str, Range] | None = None  # or
    tokens: dict[str, Range] | None = None
    max_rows: Count | None
    max_rejected_share: Share

    @property
    def lengths(self) -> dict[str, tuple[int, int]]:
        """Least and most words or tokens of each text."""
        return self.words or self.tokens or {}

    @model_validator(mode="after")
    def _limit_every_text(self) -> Self:
        expected = TEXT_FIELDS[self.kind]
        if (self.words is None) == (self.tokens is None):
            raise ValueError("limit the lengths of texts in words or in tokens: give one of the two keys")
        if set(self.lengths) != set(expected):
            unit = "words" if self.words is not None else "tokens"
            raise ValueError(f"{unit}: a source of {self.kind} needs {list(expected)}, got {sorted(self.lengths)}")
        if len(expected) == 1 and re.search("-[a-z]", self.language):
            raise ValueError(f"language: a source of {self.kind} has one text a row, got a pair, {self.language}")
        return self


class LanguageId(Section):
    min_words: Count
    min_confidence: Share


class NearDuplicates(Section):
    jaccard: Similar
    across: tuple[Annotated[tuple[Name, ...], Field(min_length=2)], ...]


class EvaluationOverlap(Section):
    jaccard: Similar
    containment: Similar | None
    max_share: Share


class Curate(Section):
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    allowed_licenses: Annotated[tuple[str, ...], Field(min_length=1)] | None
    language_id: LanguageId | None
    near_duplicates: NearDuplicates
    evaluation_overlap: EvaluationOverlap

    @model_validator(mode="after")
    def _name_sources_once(self) -> Self:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources: each name once, got {twice} more than once")
        return self

    @model_validator(mode="after")
    def _take_allowed_text_only(self) -> Self:
        if self.allowed_licenses is not None:
            refused = {one.name: one.license for one in self.sources if one.license not in self.allowed_licenses}
            if refused:
                raise ValueError(
                    f"allowed_licenses: refused sources {refused}; leave them out, or allow their licences "
                    f"(allowed are {list(self.allowed_licenses)})"
                )
        return self

    @model_validator(mode="after")
    def _compare_sources_of_a_kind(self) -> Self:
        kinds = {source.name: source.kind for source in self.sources}
        many = {source.name for source in self.sources if source.language == "mul"}
        grouped = [name for group in self.near_duplicates.across for name in group]
        for group in self.near_duplicates.across:
            if len({kinds.get(name) for name in group}) > 1 or group[0] not in kinds:
                raise ValueError(f"near_duplicates.across: {list(group)} are not sources of one kind in sources")
            if many & set(group) and not many >= set(group):
                raise ValueError(
                    f"near_duplicates.across: {list(group)} are sources whose rows say their language (mul) and "
                    "others; rows are compared by language: group either kind by itself"
                )
        if len(grouped) > len(set(grouped)):
            raise ValueError(f"near_duplicates.across: each source in one group, got {grouped}")
        return self
