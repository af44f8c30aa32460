"""The schema of claims.yaml: variants as overrides of the recipe, and claims as comparisons of their figures."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

FILE = Path(__file__).with_name("claims.yaml")
_TASKS = {"spearman": "text-matching", "v_measure": "clustering", "accuracy": "classification"}
# Names that DVC accepts for an experiment.
NAME = r"[a-z0-9][a-z0-9-]*"
SIDE = re.compile(rf"({NAME}) ([a-z_@0-9-]+)(?: - ([a-z_@0-9-]+))?")


def _side(text: str) -> str:
    if not SIDE.fullmatch(text):
        raise ValueError("expected `variant figure`, or `variant figure - figure` for a change, such as `all ndcg`")
    return text


SideText = Annotated[str, AfterValidator(_side)]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of the file: every key known, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(Section):
    """The project's recipe with some values set, and the model whose figures count."""

    subject: Literal["student", "adapter", "joint"]
    set: dict[str, Any]


class Comparison(Section):
    """A figure that should be above another, as in the paper."""

    above: SideText
    below: SideText
    paper: str  # the paper's figures in the same order, or what it draws

    @property
    def sides(self) -> list[tuple[str, str, str | None]]:
        """(variant, figure, figure to subtract) of both sides."""
        matches = [SIDE.fullmatch(text) for text in (self.above, self.below)]
        return [(match[1], match[2], match[3]) for match in matches if match]


class Claim(Section):
    """A claim of the paper, its place in the paper, and the comparisons that test it."""

    says: str
    source: str
    comparisons: Annotated[tuple[Comparison, ...], Field(min_length=1)]


class Seconds(Section):
    """Seconds of a variant's parts on the machine named in the file, to estimate a run."""

    distill: Positive
    adapter: Positive
    joint: Positive
    score: Positive
    start: Positive  # of any experiment, for DVC and the unchanged stages


class Suite(Section):
    """The whole file. `common` holds the YAML anchors that variants refer to."""

    num_resamples: Annotated[int, Field(ge=100)]
    seconds: Seconds
    common: dict[str, dict[str, Any]]
    variants: dict[Name, Variant]
    claims: dict[Name, Claim]

    @model_validator(mode="after")
    def _compare_declared_variants(self) -> Self:
        for name, claim in self.claims.items():
            for variant, _, _ in (side for comparison in claim.comparisons for side in comparison.sides):
                if variant not in self.variants:
                    raise ValueError(f"claims.{name}: {variant!r} is no variant; those are {sorted(self.variants)}")
        return self

    def needed(self, claims: list[str]) -> dict[str, set[str]]:
        """Collect the tasks to score for the claims, by variant in the file's order."""
        tasks: dict[str, set[str]] = {}
        for comparison in (comparison for name in claims for comparison in self.claims[name].comparisons):
            for variant, figure, _ in comparison.sides:
                tasks.setdefault(variant, set()).add(task_of(figure))
        return {name: tasks[name] for name in self.variants if name in tasks}


def task_of(figure: str) -> str:
    """Name the task whose scored rows give a figure."""
    return _TASKS.get(figure, "retrieval")


def read(file: Path = FILE) -> Suite:
    """Read and check a file of claims.

    Raises:
        ValueError: not valid; one line per fault.
        FileNotFoundError: there is no such file.
    """
    try:
        return Suite.model_validate(YAML(typ="safe").load(file.read_text(encoding="utf-8")))
    except YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {error}") from error
    except ValidationError as error:
        faults = (f"{file}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ValueError("\n".join(faults)) from error
