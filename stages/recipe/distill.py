"""Section `distill`: the student and stage 1, embedding distillation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import BatchSize, Count, Dims, Names, Positive, Section, Share, Tokens
from stages.recipe.training import Schedule


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


class DistillSchedule(Schedule):
    batch_tokens: Count | None
    batch_size: BatchSize | None

    @model_validator(mode="after")
    def _fill_a_batch_one_way(self) -> Self:
        if (self.batch_tokens is None) == (self.batch_size is None):
            raise ValueError("give batch_tokens or batch_size and set the other to null")
        return self


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
    training: DistillSchedule
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
