"""The whole recipe: its sections, the checks across them, and the only reader of params.yaml.

A recipe has no unknown keys, and no defaults but for keys that need not be given: `words` or `tokens` of a source, and
`min`, `max`, `low` and `otherwise` of a gate. Reading it imports nothing heavy.
"""

import itertools
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from stages.recipe.adapt import ABSENT, TRAINED, Adapt, Clustering, Retrieval, TextMatching
from stages.recipe.curate import Curate
from stages.recipe.distill import Distill
from stages.recipe.embed import Embed
from stages.recipe.engine import Engine
from stages.recipe.evaluate import Evaluate
from stages.recipe.extend import Extend
from stages.recipe.fields import TASKS, Kind, Name, Section
from stages.recipe.mine import Mine
from stages.recipe.paths import RECIPE
from stages.recipe.promote import Promote
from stages.recipe.quantize import Quantize

_TRAINING_SECTIONS = ("distill.", "extend.", "adapt.")
_LONG = ("evaluate.long.articles", "evaluate.long.haystacks")
# Figures of retrieval whose names do not begin with it.
_OF_RETRIEVAL = ("teacher_ndcg", "half_dimensions_", "int8_retention", "binary_", "index_compatibility")


class Recipe(Section):
    """A whole recipe: one section for each stage."""

    name: Name = Field(description="Name of the recipe: its release's folder and its experiment in MLflow.")
    seed: Annotated[int, Field(ge=0)] = Field(
        description="Seed of every random choice: splits, order of rows, negatives, initial weights, resamples."
    )
    engine: Engine = Field(description="How the stages that run a model use the machine.")
    curate: Curate = Field(description="Sources of text, and the conditions that their rows must meet.")
    embed: Embed = Field(description="The frozen teacher, and how it reads texts.")
    mine: Mine = Field(description="Hard negatives for the retrieval adapter.")
    distill: Distill = Field(description="The student, and stage 1 of the paper.")
    extend: Extend = Field(description="The long-context phase.")
    adapt: Adapt = Field(description="Stage 2 of the paper: an adapter for each task.")
    quantize: Quantize = Field(description="The release and its formats.")
    evaluate: Evaluate = Field(description="The texts and tasks on which the models are tested.")
    promote: Promote = Field(description="The model registry, the gates and the sign-off.")

    def named_sources(self) -> dict[str, tuple[Kind | None, tuple[str, ...]]]:
        """Every key that names sources, with the kind that they must have (None: any) and their names."""
        long = self.evaluate.long
        compares_pairs = self.distill.objective != "embedding_distillation"
        return {
            "mine.sources": ("pairs", self.mine.sources),
            "distill.sources": ("pairs" if compares_pairs else None, self.distill.sources),
            "embed.long.sources": (None, self.embed.long.sources),
            "extend.mixture": (None, tuple(draw.source for draw in self.extend.mixture)),
            "adapt.retrieval.mixture": ("pairs", tuple(draw.source for draw in self.adapt.retrieval.mixture)),
            "adapt.text-matching.scored_sources": ("scored", self.adapt.text_matching.scored_sources),
            "adapt.text-matching.pair_sources": ("pairs", self.adapt.text_matching.pair_sources),
            "adapt.clustering.sources": (None, self.adapt.clustering.sources),
            "adapt.classification.sources": ("labelled", self.adapt.classification.sources),
            "evaluate.sources.retrieval": ("pairs", self.evaluate.sources.retrieval),
            "evaluate.sources.unseen": ("pairs", self.evaluate.sources.unseen),
            "evaluate.long.haystacks": ("documents", (long.haystacks,) if long.haystacks else ()),
            "evaluate.long.articles": ("pairs", (long.articles,) if long.articles else ()),
            "evaluate.sources.text-matching": ("scored", self.evaluate.sources.text_matching),
            "evaluate.sources.clustering": ("labelled", self.evaluate.sources.clustering),
            "evaluate.sources.classification": ("labelled", self.evaluate.sources.classification),
        }

    def trained_on(self) -> set[str]:
        """Names of the sources that a phase trains on."""
        named = self.named_sources().items()
        return {name for key, (_, names) in named if key.startswith(_TRAINING_SECTIONS) for name in names}

    @model_validator(mode="after")
    def _check_kinds(self) -> Self:
        kinds = {source.name: source.kind for source in self.curate.sources}
        for key, (kind, names) in self.named_sources().items():
            fitting = sorted(name for name in kinds if kind in (kinds[name], None))
            if wrong := [name for name in names if name not in fitting]:
                raise ValueError(
                    f"{key}: expected sources of {f'kind {kind}' if kind else 'any kind'} in curate.sources, got "
                    f"{wrong}; the declared ones are {fitting}"
                )
        return self

    @model_validator(mode="after")
    def _check_long_sources(self) -> Self:
        named = self.named_sources()
        for long, key in itertools.product(_LONG, named):
            if key != long and (both := set(named[long][1]) & set(named[key][1])):
                raise ValueError(
                    f"{long}: {both.pop()!r} is also in {key}, but the teacher does not read sources of evaluate.long; "
                    "declare the same text again as a source of another name"
                )
        return self

    @model_validator(mode="after")
    def _check_unseen(self) -> Self:
        for key, (_, names) in self.named_sources().items():
            trained_on = sorted(set(names) & set(self.evaluate.sources.unseen))
            if trained_on and key.startswith(_TRAINING_SECTIONS):
                raise ValueError(
                    f"evaluate.sources.unseen: expected sources that nothing trains on, but {trained_on} are in {key}; "
                    "remove them from one of the two"
                )
        return self

    @model_validator(mode="after")
    def _check_absent_tasks(self) -> Self:
        measured = self.evaluate.sources.model_dump(by_alias=True)
        needing = {f"evaluate.sources.{task}": (task, measured[task]) for task in TASKS}
        needing |= {
            "evaluate.sources.unseen": ("retrieval", measured["unseen"]),
            "mine.sources": ("retrieval", self.mine.sources),
        }
        for key, (task, names) in needing.items():
            if names and task not in self.adapt.tasks:
                raise ValueError(
                    f"{key}: expected none, since adapt.{task} has no sources, got {list(names)}; set it to [], or "
                    f"give adapt.{task} sources"
                )
        return self

    @model_validator(mode="after")
    def _check_gates(self) -> Self:
        held_out = {source.name for source in self.curate.sources if source.splits.test}
        unmeasured = {
            f"evaluate.sources.{task}": (f"{task.replace('-', '_')}_", *(_OF_RETRIEVAL if task == "retrieval" else ()))
            for task, names in self.evaluate.sources.model_dump(by_alias=True).items()
            if not held_out.intersection(names)
        }
        if not any(name.endswith("int8") for name in self.quantize.formats):
            unmeasured["quantize.formats"] = ("int8_weights_",)
        for key, beginnings in unmeasured.items():
            if gates := [name for name in self.promote.gates if name.startswith(beginnings)]:
                missing = "no int8 format" if key == "quantize.formats" else "no source with test rows (splits.test)"
                raise ValueError(
                    f"promote.gates: got {gates}, but there are no such figures, since {key} names {missing}; remove "
                    "these gates"
                )
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        mixtures = {"extend.mixture": self.extend.mixture, "adapt.retrieval.mixture": self.adapt.retrieval.mixture}
        for key, draw in ((key, draw) for key, mixture in mixtures.items() for draw in mixture):
            is_long = draw.source in self.embed.long.sources
            teacher_tokens = self.embed.long.max_tokens if is_long else self.embed.max_tokens
            if draw.max_tokens > teacher_tokens:
                raise ValueError(
                    f"{key}: the student reads {draw.max_tokens} tokens of {draw.source}, but the teacher only "
                    f"{teacher_tokens}; lower max_tokens here, or add the source to embed.long.sources and raise "
                    "embed.long.max_tokens"
                )
        student_tokens = {
            "distill": self.distill.max_tokens,
            **{
                f"adapt.{task}": section.max_tokens
                for task, section in self.adapt.trained.items()
                if isinstance(section, TextMatching | Clustering)  # classification does not read the teacher
            },
        }
        for key, max_tokens in student_tokens.items():
            if max_tokens > self.embed.max_tokens:
                raise ValueError(
                    f"{key}.max_tokens: the student reads {max_tokens} tokens, but the teacher only "
                    f"{self.embed.max_tokens}; lower it, or raise embed.max_tokens"
                )
        return self

    @model_validator(mode="after")
    def _check_rope_thetas(self) -> Self:
        compared = self.evaluate.long.haystacks or self.evaluate.long.articles
        if compared and None in (self.distill.rope_theta, self.quantize.rope_theta):
            raise ValueError(
                "evaluate.long: long documents are compared at several RoPE thetas, but distill.rope_theta or "
                "quantize.rope_theta is null; give both, or set haystacks and articles to null"
            )
        return self

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        retrieval = self.adapt.retrieval
        unmined = sorted({draw.source for draw in retrieval.mixture} - set(self.mine.sources))
        if unmined:
            raise ValueError(f"adapt.retrieval.mixture: {unmined} have no mined negatives; add them to mine.sources")
        if isinstance(retrieval, Retrieval) and retrieval.num_negatives > self.mine.num_negatives:
            raise ValueError(
                f"adapt.retrieval.num_negatives: expected at most mine.num_negatives, {self.mine.num_negatives}, got "
                f"{retrieval.num_negatives}; lower it, or raise mine.num_negatives"
            )
        return self


def read(file: Path = RECIPE) -> Recipe:
    """Read and check a recipe.

    Example:
        recipe = read(Path("deploy/recipes/nano.yaml"))
        recipe.adapt.retrieval.temperature  # 0.02

    Raises:
        ValueError: a key is missing, unknown or out of range. The message has a line for each fault, with its key.
        FileNotFoundError: there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file in {Path.cwd()}; give the path of a recipe")
    try:
        # The parser that DVC uses, set up as DVC does: others read 1e-4 as a string.
        values: Any = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {error}") from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(file, fault) for fault in error.errors())) from error


def load(file: Path = RECIPE) -> Recipe:
    """Read a recipe for a command: a fault ends the process with its short message instead of a traceback."""
    try:
        return read(file)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def _explain(file: Path, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"] if part not in (TRAINED, ABSENT))
    match fault["type"]:
        case "extra_forbidden":
            return f"{file}: {key}: unknown key; correct its spelling or remove it"
        case "missing":
            return f"{file}: {key}: missing key; a recipe has no defaults, so every value is written down"
        case _:
            given = "" if isinstance(fault["input"], dict | list) else f" (got {fault['input']!r})"
            given = re.sub(r"://[^/\s@]+@", "://***@", given)  # a user and password in an address
            message = fault["msg"].removeprefix("Value error, ")
            return f"{file}: {key + ': ' if key else ''}{message}{given}"
