"""Section `curate`: the sources of text, and the conditions that their rows must meet."""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.recipe.fields import TEXT_FIELDS, Count, Kind, Language, Name, Range, Section, Share, Threshold


class Splits(Section):
    """Shares of a source's entities in the dev and test splits; all other entities are in the train split."""

    dev: Share = Field(description="Share of the entities whose rows are scored while training goes on.")
    test: Share = Field(description="Share of the entities whose rows are scored by the evaluation.")

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if self.dev + self.test > 1:
            raise ValueError(f"dev and test: expected shares whose sum is at most 1, got {self.dev} + {self.test}")
        return self


class Source(Section):
    """A source of text: where its rows are read, what they are, and how long their texts may be."""

    name: Name = Field(description="Name by which other sections refer to this source.")
    kind: Kind = Field(
        description="What a row holds. `pairs`: a query and the document that answers it; `scored`: two texts and a "
        "score of their similarity; `labelled`: a text and its label; `documents`: a text; "
        "`parallel`: a text and its translation."
    )
    reader: str = Field(
        description="Reader that turns the files into rows, such as `rows.pairs` for CSV, JSON lines and parquet."
    )
    files: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="Where the text is: paths or globs below the checkout, `package:PACKAGE/PATH` for a file of an "
        "installed Python package, `https://` or `s3://` addresses, or `hub:DATA_SET`."
    )
    packages: dict[str, str] = Field(
        description="Python packages that hold the files, each with the version that must be installed."
    )
    options: dict[str, float | str] = Field(
        description="Arguments of the reader, such as the names of columns: `{query: question, document: answer}`."
    )
    language: Language = Field(
        description="Language of the texts as an ISO 639 code (`en`, `pt-BR`), a pair such as `en-de` for queries in "
        "the first and documents in the second language, `mul` where each row names its own, or `und` to skip the "
        "language check."
    )
    license: str = Field(description="Licence of the text. The release's card and lineage name it.")
    splits: Splits = Field(description="Shares of the entities in the dev and test splits.")
    words: dict[str, Range] | None = Field(
        default=None,
        description="Least and most words of each text field, such as `{query: [2, 80], document: [5, 400]}`. Give "
        "either `words` or `tokens`.",
    )
    tokens: dict[str, Range] | None = Field(
        default=None, description="Least and most tokens of each text field, counted by the student's tokenizer."
    )
    max_rows: Count | None = Field(
        description="Most rows to keep, chosen by a hash of the row so that new rows change few choices; null keeps "
        "all. Rows beyond it do not count as rejected."
    )
    max_rejected_share: Share = Field(
        description="Share of the rows that may be rejected; a larger share refuses the source and stops the build."
    )

    @property
    def lengths(self) -> dict[str, tuple[int, int]]:
        """Least and most words or tokens of each text field."""
        return self.words or self.tokens or {}

    @model_validator(mode="after")
    def _check_text_fields(self) -> Self:
        expected = TEXT_FIELDS[self.kind]
        if (self.words is None) == (self.tokens is None):
            raise ValueError("expected limits in words or in tokens; give one of these two keys")
        if set(self.lengths) != set(expected):
            unit = "words" if self.words is not None else "tokens"
            raise ValueError(
                f"{unit}: a source of kind {self.kind} needs limits for {list(expected)}, got {sorted(self.lengths)}"
            )
        if len(expected) == 1 and re.search("-[a-z]", self.language):
            raise ValueError(
                f"language: a source of kind {self.kind} has one text per row; expected one language, got the pair "
                f"{self.language}"
            )
        return self


class LanguageId(Section):
    """Language identification by fastText's lid.176. It rejects texts that are clearly in another language."""

    min_words: Count = Field(description="Shorter texts are not checked, since they are identified unreliably.")
    min_confidence: Share = Field(
        description="Confidence of the identification from which a text in another language is rejected."
    )


class NearDuplicates(Section):
    """Rejection of rows that nearly repeat an earlier row of the same split."""

    jaccard: Threshold = Field(
        description="Jaccard similarity of three-word shingles, estimated by MinHash, from which a row is rejected."
    )
    across: tuple[Annotated[tuple[Name, ...], Field(min_length=2)], ...] = Field(
        description="Groups of sources that may not repeat one another either; other sources are compared only within "
        "themselves."
    )


class EvaluationOverlap(Section):
    """Rejection of train and dev rows whose text also occurs in a test row of any source."""

    jaccard: Threshold = Field(
        description="Jaccard similarity of three-word shingles to a test text from which a train or dev row is "
        "rejected."
    )
    containment: Threshold | None = Field(
        description="Share of a test text's runs of eight words that a train or dev text may contain before its row is "
        "rejected; null skips this check."
    )
    max_share: Share = Field(
        description="Share of a source's test rows that may be found in train or dev; a larger share stops the build."
    )


class Curate(Section):
    """Sources of text, and the checks that apply to all of them."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = Field(description="Sources of text, in order.")
    allowed_licenses: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        description="Licences that sources may have; a source under another licence is refused. Null allows all."
    )
    language_id: LanguageId | None = Field(description="Language check of every text; null skips it.")
    near_duplicates: NearDuplicates = Field(description="When a row counts as a near duplicate.")
    evaluation_overlap: EvaluationOverlap = Field(description="When a row counts as a copy of a test row.")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [source.name for source in self.sources]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"sources: expected each name once, got {repeated} more than once; rename the others")
        return self

    @model_validator(mode="after")
    def _check_licenses(self) -> Self:
        allowed = self.allowed_licenses
        refused = {source.name: source.license for source in self.sources if allowed and source.license not in allowed}
        if allowed and refused:
            raise ValueError(
                f"allowed_licenses: expected licences among {list(allowed)}, got {refused}; remove these sources or "
                "allow their licences"
            )
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        kinds = {source.name: source.kind for source in self.sources}
        multilingual = {source.name for source in self.sources if source.language == "mul"}
        for group in self.near_duplicates.across:
            if len({kinds.get(name) for name in group}) > 1 or group[0] not in kinds:
                raise ValueError(
                    f"near_duplicates.across: expected sources of one kind, got {list(group)}; group declared sources "
                    "of the same kind"
                )
            if multilingual & set(group) and not multilingual >= set(group):
                raise ValueError(
                    f"near_duplicates.across: {list(group)} mixes sources of language mul with others, but rows are "
                    "compared within a language; put the two into separate groups"
                )
        grouped = [name for group in self.near_duplicates.across for name in group]
        if len(grouped) > len(set(grouped)):
            raise ValueError(f"near_duplicates.across: expected each source in at most one group, got {grouped}")
        return self
