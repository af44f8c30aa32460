"""The typed view of params.yaml and its only reader: no defaults, no unknown keys, nothing heavy imported.

`python -m stages.params [FILE]` checks a recipe by itself.
"""

import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, YAMLError

FILE = Path("params.yaml")
CHECKED = Path("data/params/checked.txt")
# How keys of what trains begin.
_PHASES = ("distill.", "extend.", "adapt.")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Similar = Annotated[float, Field(ge=0.5, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
# `en`, `pt-BR`, `zh-Hant`; or the languages of a row's two texts, `en-de`.
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


def _given(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _increasing(dims: tuple[int, ...]) -> tuple[int, ...]:
    if not dims or min(dims) < 1 or any(left >= right for left, right in itertools.pairwise(dims)):
        raise ValueError(f"expected increasing positive dimensions, got {list(dims)}")
    return dims


def _whole(name: str) -> str:
    """YAML takes a name with a comma apart."""
    if name.count("(") != name.count(")"):
        raise ValueError('expected a whole name; put one with a comma in quotes, as "MTEB(eng, v2)"')
    return name


Range = Annotated[tuple[int, int], AfterValidator(_range)]
Dims = Annotated[tuple[int, ...], AfterValidator(_increasing)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Tokens = Annotated[int, Field(ge=4)]
BatchSize = Annotated[int, Field(ge=2)]


class Section(BaseModel):
    """A part of a recipe: every key required, none unknown, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Engine(Section):
    threads: Count
    processes: Count
    precision: Literal["float32", "bfloat16"]
    micro_batch_tokens: Count
    packing: bool
    gradient_checkpointing: bool
    compile: bool
    shard: bool


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


class LongTexts(Section):
    sources: tuple[Name, ...]
    max_tokens: Tokens
    window_tokens: Tokens


class ModelFolder(Section):
    path: str

    @property
    def name(self) -> str:
        """What the release says where its teacher came from."""
        return self.path


class TransformerTeacher(ModelFolder):
    kind: Literal["transformer"]
    pooling: Literal["last", "mean", "cls"]


class SentenceTransformerTeacher(ModelFolder):
    kind: Literal["sentence_transformer"]


class EndpointTeacher(Section):
    kind: Literal["endpoint"]
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
    model: str
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None
    batch_size: Count
    parallel: Count
    max_retries: Annotated[int, Field(ge=0)]
    timeout: Positive

    @property
    def name(self) -> str:
        """What the release says where its teacher came from."""
        return self.model


class RayWorkers(Section):
    workers: Count
    gpus: NotNegative


class Embed(Section):
    teacher: Annotated[TransformerTeacher | SentenceTransformerTeacher | EndpointTeacher, Field(discriminator="kind")]
    license: str
    ray: RayWorkers | None
    max_tokens: Tokens
    max_truncated_share: Share
    long: LongTexts
    prompts: dict[str, str]
    batch_tokens: Count

    @model_validator(mode="after")
    def _name_every_prompt(self) -> Self:
        expected = ["clustering", "document", "query"]
        if sorted(self.prompts) != expected:
            raise ValueError(
                f"prompts: expected {expected}, got {sorted(self.prompts)}; "
                'write "" where the teacher takes no instruction'
            )
        if isinstance(self.teacher, EndpointTeacher) and self.long.sources:
            raise ValueError("long.sources: an endpoint does not tell its tokens, so there are no windows; empty it")
        return self


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


class Backbone(Section):
    path: str
    architecture: Literal["pretrained", "rotary", "eurobert"]
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None
    num_layers: Count | None
    num_attention_heads: Count | None
    intermediate_size: Count | None
    max_position_embeddings: Count | None

    @model_validator(mode="after")
    def _shape_only_what_is_built(self) -> Self:
        built = {name: getattr(self, name) for name in ("num_layers", "num_attention_heads", "intermediate_size")}
        if self.architecture == "eurobert" and (None in built.values() or self.layers is not None):
            raise ValueError(f"architecture eurobert is built from the recipe: give {list(built)}, and null for layers")
        if self.architecture != "eurobert" and any(value is not None for value in built.values()):
            raise ValueError(
                f"architecture {self.architecture} takes its shape from the folder: choose layers (null: all), "
                f"and null for {list(built)}"
            )
        if (self.architecture == "pretrained") != (self.max_position_embeddings is None):
            raise ValueError(
                "max_position_embeddings: null where the folder says it (pretrained), else the most tokens of a text"
            )
        return self


class WarmStart(Section):
    num_texts: Count
    ridge_penalty: Positive


class Training(Section):
    steps: Count
    learning_rate: Positive
    warmup_ratio: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    evaluate_every: Count
    checkpoint_every: Count


class DistillTraining(Training):
    batch_tokens: Count | None
    batch_size: BatchSize | None

    @model_validator(mode="after")
    def _fill_a_batch_one_way(self) -> Self:
        if (self.batch_tokens is None) == (self.batch_size is None):
            raise ValueError("give batch_tokens or batch_size and set the other to null")
        return self


class RowTraining(Training):
    batch_size: BatchSize


class Projection(Section):
    side: Literal["student", "teacher"]
    trained: bool


class Distill(Section):
    sources: Names
    backbone: Backbone
    pooling: Literal["last", "mean", "cls"]
    prompts: dict[str, str]
    max_tokens: Tokens
    max_truncated_share: Share
    rope_theta: Positive | None
    freeze_token_embeddings: bool
    matryoshka_dims: Dims
    warm_start: WarmStart
    objective: Literal["embedding_distillation", "score_distillation", "info_nce"]
    projection: Projection
    temperature: Positive
    training: DistillTraining
    continued_steps: Count

    @model_validator(mode="after")
    def _complete(self) -> Self:
        expected = ["document", "query"]
        if sorted(self.prompts) != expected:
            raise ValueError(f"prompts: expected {expected}, got {sorted(self.prompts)}")
        if self.backbone.architecture != "pretrained" and self.rope_theta is None:
            raise ValueError(f"rope_theta: architecture {self.backbone.architecture} needs one, got null")
        if self.objective != "embedding_distillation":
            self._check_pairs()
        return self

    def _check_pairs(self) -> None:
        if self.training.batch_size is None:
            raise ValueError(
                f"training.batch_size: objective {self.objective} compares the pairs of a batch; give their number and "
                "set batch_tokens to null"
            )
        if self.projection != Projection(side="student", trained=True):
            raise ValueError(f"projection: objective {self.objective} has none; leave it at side student, trained true")


class Draw(Section):
    source: Name
    weight: Positive
    max_tokens: Tokens
    batch_size: BatchSize


class ExtendTraining(Training):
    steps: Annotated[int, Field(ge=0)]


class Extend(Section):
    mixture: tuple[Draw, ...]
    language_exponent: Share | None
    max_truncated_share: Share
    rope_theta: Positive | None
    training: ExtendTraining

    @model_validator(mode="after")
    def _draw_from_something(self) -> Self:
        if self.training.steps and not self.mixture:
            raise ValueError("mixture: name a source to draw from, or set training.steps to 0 to leave this phase out")
        return self


class Lora(Section):
    rank: Count
    alpha: Count


class Adapter(Section):
    lora: Lora
    max_truncated_share: Share
    rope_theta: Positive | None


class FixedLengthAdapter(Adapter):
    max_tokens: Tokens
    training: RowTraining


class RetrievalWeights(Section):
    info_nce: NotNegative
    distillation: NotNegative
    spread_out: NotNegative


class Average(Section):
    earlier: Annotated[float, Field(gt=0.0, lt=1.0)]
    weight: Share


class Retrieval(Adapter):
    mixture: Annotated[tuple[Draw, ...], Field(min_length=1)]
    language_exponent: Share | None
    training: Training
    num_negatives: Count
    temperature: Annotated[float, Field(ge=0.005, le=0.2)]  # it is learned, within these bounds
    false_negative_margin: Share | None
    weights: RetrievalWeights
    average: Average


class TextMatchingWeights(Section):
    cosent: NotNegative
    info_nce: NotNegative
    distillation: NotNegative


class TextMatching(FixedLengthAdapter):
    scored_sources: Names
    pair_sources: Names
    scored_share: Share
    temperature: Positive
    cosent_temperature: Positive
    weights: TextMatchingWeights


class Clustering(FixedLengthAdapter):
    sources: Names


class ClassificationWeights(Section):
    info_nce: NotNegative
    relational: NotNegative


class Classification(FixedLengthAdapter):
    sources: Names
    num_negatives: Count
    temperature: Positive
    weights: ClassificationWeights


class Adapt(Section):
    retrieval: Retrieval
    text_matching: Annotated[TextMatching, Field(alias="text-matching")]
    clustering: Clustering
    classification: Classification


class ParityLimits(Section):
    cosine_min: Share
    cosine_mean: Share
    top1: Share
    spearman: Share


class Parity(Section):
    max_tokens: Tokens
    num_texts: Count
    float32: ParityLimits
    int8: ParityLimits


class Quantize(Section):
    license: str
    max_tokens: Tokens
    rope_theta: Positive | None
    num_calibration_texts: Count
    formats: tuple[Literal["onnx", "onnx-int8", "openvino-int8"], ...]
    parity: Parity

    @field_validator("formats", mode="before")
    @classmethod
    def _provable(cls, formats: Any) -> Any:
        if isinstance(formats, list | tuple):
            if "gguf" in formats:
                raise ValueError(
                    "gguf is not released: no kept package loads it from Python here, so its vectors could not be "
                    "compared with the model's; convert merged/<task> with llama.cpp and compare them yourself"
                )
            if len(set(map(str, formats))) < len(formats):
                raise ValueError("name each format once")
            if not any(str(name).endswith("int8") for name in formats):
                raise ValueError("name onnx-int8 or openvino-int8: the evaluation says what int8 weights cost and save")
        return formats


class Bm25(Section):
    k1: NotNegative
    b: Share


class EvaluateSources(Section):
    retrieval: Names
    unseen: tuple[Name, ...]
    text_matching: Annotated[Names, Field(alias="text-matching")]
    clustering: Names
    classification: Names


class EvaluateLong(Section):
    haystacks: Name | None
    articles: Name | None
    lengths: Dims
    num_documents: BatchSize
    rope_thetas: tuple[Positive, ...]


class EvaluateMteb(Section):
    tasks: tuple[Annotated[str, AfterValidator(_whole)], ...]
    folder: Path | None


class Evaluate(Section):
    sources: EvaluateSources
    mteb: EvaluateMteb
    long: EvaluateLong
    truncate_dims: Dims
    bm25: Bm25
    num_resamples: Count


class Gate(Section):
    min: float | None = None
    max: float | None = None
    low: float | None = None
    otherwise: Literal["refuse", "warn"] = "refuse"

    @model_validator(mode="after")
    def _limit_something(self) -> Self:
        if self.min is None and self.max is None and self.low is None:
            raise ValueError("a gate needs min, max or low, the least lower end of the interval")
        return self


class Promote(Section):
    registered_model: Name
    mode: Literal["disabled", "dry_run", "enabled"]
    gates: dict[str, Gate]
    allowed_licenses: Annotated[tuple[str, ...], Field(min_length=1)] | None
    signoff: Literal["automatic", "human"]
    approvals: Annotated[int, Field(ge=1, le=2)]
    signoff_hours: Positive

    @model_validator(mode="after")
    def _leave_approving_to_people(self) -> Self:
        if self.signoff == "automatic" and self.approvals > 1:
            raise ValueError(f"approvals: signoff automatic asks nobody, got {self.approvals}; set 1, or signoff human")
        return self


class Params(Section):
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


def read(file: Path = FILE) -> Params:
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
        return Params.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(file, fault) for fault in error.errors())) from error


def load(file: Path = FILE) -> Params:
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


def main() -> None:
    """Check a recipe; for params.yaml itself leave the mark that the pipeline's first stage waits for."""
    parser = argparse.ArgumentParser(prog="python -m stages.params", description="Check a recipe file.")
    parser.add_argument("file", nargs="?", type=Path, default=FILE, help="the recipe (default: params.yaml)")
    file = parser.parse_args().file
    params = load(file)
    print(f"{file}: recipe {params.name} is valid")
    if file == FILE:
        CHECKED.parent.mkdir(parents=True, exist_ok=True)
        # Always the same text: what depends on the check must not re-run because another stage's value changed.
        CHECKED.write_text("checked\n", encoding="utf-8")


if __name__ == "__main__":
    main()
