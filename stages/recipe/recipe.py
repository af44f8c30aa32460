"""The whole recipe: its sections, the checks across them, and the only reader of params.yaml.

A recipe has no defaults and no unknown keys. Reading it imports nothing heavy.
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from stages.recipe.adapt import Adapt
from stages.recipe.curate import Curate
from stages.recipe.distill import Distill
from stages.recipe.embed import Embed
from stages.recipe.engine import Engine
from stages.recipe.evaluate import Evaluate
from stages.recipe.extend import Extend
from stages.recipe.fields import Kind, Name, Section
from stages.recipe.mine import Mine
from stages.recipe.paths import RECIPE
from stages.recipe.promote import Promote
from stages.recipe.quantize import Quantize


def _given(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


_PHASES = ("distill.", "extend.", "adapt.")


class Recipe(Section):
    """A whole recipe: one section a stage."""

    name: Name
    seed: Annotated[int, Field(ge=0)]
    engine: Engine
    curate: Curate
    embed: Embed
    mine: Mine
    distill: Distill
    extend: Extend
    adapt: Adapt
    quantize: Quantize
    evaluate: Evaluate
    promote: Promote

    def _uses(self) -> dict[str, tuple[Kind, tuple[str, ...]]]:
        """Where a recipe names sources, of which kind they are there, and which it names."""
        return {
            "mine.sources": ("pairs", self.mine.sources),
            "distill.sources": ("pairs", self.distill.sources),
            "embed.long.sources": ("pairs", self.embed.long.sources),
            "extend.mixture": ("pairs", tuple(draw.source for draw in self.extend.mixture)),
            "adapt.retrieval.mixture": ("pairs", tuple(draw.source for draw in self.adapt.retrieval.mixture)),
            "adapt.text-matching.scored_sources": ("scored", self.adapt.text_matching.scored_sources),
            "adapt.text-matching.pair_sources": ("pairs", self.adapt.text_matching.pair_sources),
            "adapt.clustering.sources": ("pairs", self.adapt.clustering.sources),
            "adapt.classification.sources": ("labelled", self.adapt.classification.sources),
            "evaluate.sources.retrieval": ("pairs", self.evaluate.sources.retrieval),
            "evaluate.sources.unseen": ("pairs", self.evaluate.sources.unseen),
            "evaluate.long.haystacks": ("documents", _given(self.evaluate.long.haystacks)),
            "evaluate.long.articles": ("pairs", _given(self.evaluate.long.articles)),
            "evaluate.sources.text-matching": ("scored", self.evaluate.sources.text_matching),
            "evaluate.sources.clustering": ("labelled", self.evaluate.sources.clustering),
            "evaluate.sources.classification": ("labelled", self.evaluate.sources.classification),
        }

    def trained_on(self) -> set[str]:
        """Names of the sources that a phase trains on."""
        return {name for key, (_, names) in self._uses().items() if key.startswith(_PHASES) for name in names}

    @model_validator(mode="after")
    def _use_declared_sources(self) -> Self:
        kinds, uses = {source.name: source.kind for source in self.curate.sources}, self._uses()
        for key, (kind, names) in uses.items():
            wrong = [name for name in names if kinds.get(name) != kind]
            if wrong:
                fitting = sorted(name for name in kinds if kinds[name] == kind)
                raise ValueError(f"{key}: {wrong} are not sources of {kind} in curate.sources; those are {fitting}")
        articles = "evaluate.long.articles"
        for key, (_, names) in uses.items():
            if key != articles and set(names) & set(uses[articles][1]):
                raise ValueError(
                    f"{articles}: {list(uses[articles][1])} is also in {key}, but the teacher does not read it; "
                    "declare the text again under another name"
                )
        return self

    @model_validator(mode="after")
    def _train_on_nothing_unseen(self) -> Self:
        for key, (_, names) in self._uses().items():
            trained_on = sorted(set(names) & set(self.evaluate.sources.unseen))
            if trained_on and key.startswith(_PHASES):
                raise ValueError(
                    f"evaluate.sources.unseen: {trained_on} are trained on in {key}; take them from one of the two"
                )
        return self

    @model_validator(mode="after")
    def _read_no_more_than_the_teacher(self) -> Self:
        mixtures = {"extend.mixture": self.extend.mixture, "adapt.retrieval.mixture": self.adapt.retrieval.mixture}
        for key, draw in ((key, draw) for key, mixture in mixtures.items() for draw in mixture):
            is_long = draw.source in self.embed.long.sources
            seen = self.embed.long.max_tokens if is_long else self.embed.max_tokens
            if draw.max_tokens > seen:
                raise ValueError(
                    f"{key}: the student reads {draw.max_tokens} tokens of {draw.source}, the teacher {seen}; "
                    "add the source to embed.long.sources, raise its max_tokens there, or lower them here"
                )
        adapt = self.adapt
        read = {
            "distill": self.distill.max_tokens,
            "adapt.text-matching": adapt.text_matching.max_tokens,
            "adapt.clustering": adapt.clustering.max_tokens,
        }
        for key, max_tokens in read.items():
            if max_tokens > self.embed.max_tokens:
                raise ValueError(
                    f"{key}.max_tokens: the student reads {max_tokens} tokens, the teacher {self.embed.max_tokens}; "
                    "raise embed.max_tokens, or lower it here"
                )
        return self

    @model_validator(mode="after")
    def _compare_rope_thetas(self) -> Self:
        long, thetas = self.evaluate.long, (self.distill.rope_theta, self.quantize.rope_theta)
        if _given(long.haystacks) + _given(long.articles) and None in thetas:
            raise ValueError(
                "evaluate.long: compares RoPE thetas; distill.rope_theta or quantize.rope_theta is null; give both, "
                "or set haystacks and articles to null"
            )
        return self

    @model_validator(mode="after")
    def _mine_what_retrieval_trains_on(self) -> Self:
        unmined = sorted({draw.source for draw in self.adapt.retrieval.mixture} - set(self.mine.sources))
        if unmined:
            raise ValueError(f"adapt.retrieval.mixture: {unmined} have no mined negatives; add them to mine.sources")
        if self.adapt.retrieval.num_negatives > self.mine.num_negatives:
            raise ValueError(
                f"adapt.retrieval.num_negatives: {self.adapt.retrieval.num_negatives} asked, "
                f"mine.num_negatives gives {self.mine.num_negatives}"
            )
        return self


def read(file: Path = RECIPE) -> Recipe:
    """Read and check a recipe.

    Raises:
        ValueError: a key is missing, unknown or out of range; one line per fault, each naming its key.
        FileNotFoundError: there is no such file.
    """
    try:
        # The parser DVC uses, set up as DVC does.
        values: Any = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {error}") from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(file, fault) for fault in error.errors())) from error


def load(file: Path = RECIPE) -> Recipe:
    """`read` for a stage's main: a fault ends the process with its short message instead of a traceback."""
    try:
        return read(file)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def _explain(file: Path, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    match fault["type"]:
        case "extra_forbidden":
            return f"{file}: {key}: unknown key; correct its spelling or remove it"
        case "missing":
            return f"{file}: {key}: missing; every value of a recipe is written down"
        case _:
            given = "" if isinstance(fault["input"], dict | list) else f" (got {fault['input']!r})"
            given = re.sub(r"://[^/\s@]+@", "://***@", given)  # a user and password in an address
            message = fault["msg"].removeprefix("Value error, ")
            return f"{file}: {key + ': ' if key else ''}{message}{given}"
