"""Section `embed`: the teacher and how it reads texts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Count, Name, NotNegative, Positive, Section, Share, Tokens


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
