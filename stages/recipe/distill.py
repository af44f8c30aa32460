"""Section `distill`: the student, and stage 1 of the paper, embedding distillation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import BatchSize, Count, Increasing, Names, Pooling, Positive, Section, Share, Tokens
from stages.recipe.training import Schedule


class Backbone(Section):
    """The student's transformer: some layers of an existing model, or a small EuroBERT that is built anew."""

    path: str = Field(
        description="Folder, hub id or `package:PACKAGE/FOLDER` of the model that gives the tokenizer and the token "
        "embeddings. The paper's students are `EuroBERT/EuroBERT-210m` and `Qwen/Qwen3-0.6B-Base`."
    )
    architecture: Literal["pretrained", "rotary", "eurobert"] = Field(
        description="`pretrained` keeps the layers as they are; `rotary` puts a BERT's layers under rotary positions "
        "(RoPE), so that it reads long texts; `eurobert` builds new layers on the token embeddings."
    )
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        description="Numbers of the layers to take, from 0; null takes all. Null for `eurobert`."
    )
    num_layers: Count | None = Field(description="Layers of a `eurobert`; null for the other architectures.")
    num_attention_heads: Count | None = Field(
        description="Attention heads of each layer of a `eurobert`; null for the other architectures."
    )
    intermediate_size: Count | None = Field(
        description="Hidden units of each feed-forward block of a `eurobert`; null for the other architectures."
    )
    max_position_embeddings: Count | None = Field(
        description="Most tokens of a text that a `rotary` or `eurobert` student may read; null for `pretrained`, "
        "whose folder says it."
    )

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        shape = {name: getattr(self, name) for name in ("num_layers", "num_attention_heads", "intermediate_size")}
        if self.architecture == "eurobert" and (None in shape.values() or self.layers is not None):
            raise ValueError(
                f"architecture eurobert takes its shape from the recipe: give {list(shape)}, and null for layers"
            )
        if self.architecture != "eurobert" and any(value is not None for value in shape.values()):
            raise ValueError(
                f"architecture {self.architecture} takes its shape from the folder: choose layers (null: all), and set "
                f"{list(shape)} to null"
            )
        if (self.architecture == "pretrained") != (self.max_position_embeddings is None):
            raise ValueError(
                "max_position_embeddings: set it to null for architecture pretrained, whose folder says it; for the "
                "others give the most tokens of a text"
            )
        return self


class WarmStart(Section):
    """Closed-form start of the projection, and of the student where its layers are new."""

    num_texts: Count = Field(description="Training texts on which the projection is fitted before the first step.")
    ridge_penalty: Positive = Field(
        description="L2 penalty of these ridge regressions, relative to the mean variance of their features."
    )


class DistillSchedule(Schedule):
    """The schedule of stage 1, whose batches hold either a number of tokens or a number of rows."""

    batch_tokens: Count | None = Field(
        description="Tokens of a batch on each process, padding included: it holds as many texts of like length as "
        "fit. Null where `batch_size` is given."
    )
    batch_size: BatchSize | None = Field(
        description="Texts of a batch on each process, or pairs where the objective compares pairs. Null where "
        "`batch_tokens` is given. The paper's batch is 512 or 1024 pairs on each of 8 devices (table A1)."
    )

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if (self.batch_tokens is None) == (self.batch_size is None):
            raise ValueError("give either batch_tokens or batch_size, and set the other to null")
        return self


class Projection(Section):
    """The linear map psi between student and teacher space, equation (1); figure 4 compares the choices."""

    side: Literal["student", "teacher"] = Field(
        description="Side whose embeddings are projected. The paper projects the student up; `teacher`, which projects "
        "the teacher down, is an ablation."
    )
    trained: bool = Field(description="Whether psi is trained, as in the paper; a frozen psi is an ablation.")


class Distill(Section):
    """The student, and how it learns the teacher's embeddings."""

    sources: Names = Field(
        description="Sources to train on, of any kind. Pairs are read as queries and documents, the texts of other "
        "kinds as documents. `parallel` texts are read as both, and a translation aims at the teacher's vector of the "
        "text that it translates, so that the student learns a language that the teacher does not know (Reimers and "
        "Gurevych, arXiv 2004.09813). Objectives that compare pairs take pairs alone."
    )
    backbone: Backbone = Field(description="The student's transformer.")
    pooling: Pooling = Field(
        description="How token states become the student's vector: the last token's, as in the paper, their mean, or "
        "the first token's (`cls`)."
    )
    prompts: dict[str, str] = Field(
        description="Prefixes of a `query` and a `document`. The paper uses `Query: ` and `Document: `; every task but "
        "retrieval puts the document's prefix before both sides."
    )
    max_tokens: Tokens = Field(
        description="Tokens that the student reads of each text, its prefix included; at most `embed.max_tokens`. The "
        "paper uses 512 (table A1)."
    )
    max_truncated_share: Share = Field(
        description="Share of the texts that may be longer than `max_tokens`; a larger share stops the stage."
    )
    rope_theta: Positive | None = Field(
        description="Base of the rotary position embedding in stage 1; null for a backbone without it. The paper keeps "
        "the untouched backbone's: 250,000 for nano, 1,000,000 for small (table A1)."
    )
    freeze_token_embeddings: bool = Field(
        description="Whether the token embeddings stay as they are, which saves time and memory on small machines."
    )
    matryoshka_dims: Increasing = Field(
        description="Lengths of the prefixes of a vector that are trained to work alone. The loss is averaged over "
        "them; the last one is the whole vector."
    )
    warm_start: WarmStart = Field(description="Closed-form start before the first step.")
    objective: Literal["embedding_distillation", "score_distillation", "info_nce"] = Field(
        description="What stage 1 minimises. The paper uses embedding distillation, equation (1); score distillation, "
        "equations (9) and (10), and InfoNCE, equation (2), are its ablations."
    )
    projection: Projection = Field(description="The linear map between student and teacher space.")
    temperature: Positive = Field(
        description="Temperature of score distillation or InfoNCE, 0.02 in the paper; embedding distillation has none."
    )
    training: DistillSchedule = Field(description="Schedule and batches of stage 1.")
    continued_steps: Count = Field(
        description="Steps by which stage 1 goes on after its end, for a baseline in the report: what the adapters' "
        "time would have given without adapters."
    )

    @model_validator(mode="after")
    def _check_objective(self) -> Self:
        expected = ["document", "query"]
        if sorted(self.prompts) != expected:
            raise ValueError(f"prompts: expected {expected}, got {sorted(self.prompts)}")
        if self.backbone.architecture != "pretrained" and self.rope_theta is None:
            raise ValueError(
                f"rope_theta: architecture {self.backbone.architecture} has rotary positions; give their base, such as "
                "10000.0, got null"
            )
        if self.objective == "embedding_distillation":
            return self
        if self.training.batch_size is None:
            raise ValueError(
                f"training.batch_size: objective {self.objective} compares the pairs of a batch; give their number and "
                "set batch_tokens to null"
            )
        if self.projection != Projection(side="student", trained=True):
            raise ValueError(
                f"projection: objective {self.objective} trains without one; set side to student and trained to true"
            )
        return self
