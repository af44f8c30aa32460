"""Section `embed`: the frozen teacher, and how it reads texts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.recipe.fields import Count, Name, NotNegative, Pooling, Positive, Section, Share, Tokens


class LongTexts(Section):
    """Sources whose documents the teacher reads in windows, beyond `embed.max_tokens`."""

    sources: tuple[Name, ...] = Field(description="Names of these sources; empty for none.")
    max_tokens: Tokens = Field(description="Tokens that the teacher reads of such a document; the rest is cut off.")
    window_tokens: Tokens = Field(
        description="Tokens of a window. The vector of a document is the mean of its windows' vectors, weighted by "
        "their tokens; a window as long as `max_tokens` reads the document in one piece."
    )


class ModelFolder(Section):
    """A teacher whose weights are in a folder."""

    path: str = Field(
        description="Folder of the model, its hub id, or `package:PACKAGE/FOLDER` inside an installed Python package."
    )

    @property
    def name(self) -> str:
        """Name of the teacher in the release."""
        return self.path


class TransformerFolder(ModelFolder):
    """A teacher in the format of transformers: a backbone with a pooling."""

    kind: Literal["transformer"] = Field(description="Format of the folder.")
    pooling: Pooling = Field(
        description="How token states become a vector: the last token's, their mean, or the first token's (`cls`). The "
        "paper's teacher, Qwen3-Embedding-4B, uses `last`."
    )


class SentenceTransformerFolder(ModelFolder):
    """A teacher in the format of Sentence Transformers, with all the modules that the folder lists."""

    kind: Literal["sentence_transformer"] = Field(description="Format of the folder.")


class Endpoint(Section):
    """A teacher behind an OpenAI-compatible `/v1/embeddings` server."""

    kind: Literal["endpoint"] = Field(description="The teacher is a server.")
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] = Field(
        description="Base address of the server, such as `http://127.0.0.1:8000/v1`, without a user or password."
    )
    model: str = Field(description="Name of the model that the server is asked for.")
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        description="Environment variable that holds the server's key; null for a server without keys."
    )
    batch_size: Count = Field(description="Texts of a request.")
    parallel: Count = Field(description="Requests under way at once.")
    max_retries: Annotated[int, Field(ge=0)] = Field(description="How often a failed request is sent again.")
    timeout: Positive = Field(description="Seconds that a request may take.")
    extra_body: dict[str, bool | int | float | str] = Field(
        description="Further keys of each request, such as `truncate_prompt_tokens: -1`, by which vLLM cuts a long "
        "text; `{}` for none. They are part of a vector's key."
    )
    too_long: Literal["cut", "stop"] = Field(
        description="What happens with a text that the server refuses by itself as too large. `cut` keeps three "
        "quarters of its characters and asks again, until the server takes it, and says how many texts were cut; "
        "`stop` ends the build and names the text. A server that cuts long texts refuses none."
    )

    @property
    def name(self) -> str:
        """Name of the teacher in the release."""
        return self.model


class RayWorkers(Section):
    """Processes on Ray Data that share the work of embedding."""

    workers: Count = Field(description="Number of processes, each with a teacher of its own.")
    gpus: NotNegative = Field(description="GPUs of each process; a fraction shares a GPU among several processes.")


class Embed(Section):
    """The frozen teacher, its instructions, and how many tokens it reads."""

    teacher: Annotated[TransformerFolder | SentenceTransformerFolder | Endpoint, Field(discriminator="kind")] = Field(
        description="The teacher. The key `kind` chooses among a folder of transformers, a folder of Sentence "
        "Transformers, and a server."
    )
    license: str = Field(description="Licence of the teacher's weights. The release's card and lineage name it.")
    ray: RayWorkers | None = Field(description="Processes that share the embedding; null embeds in one process.")
    max_tokens: Tokens = Field(
        description="Tokens that the teacher reads of each text, its instruction included; the rest is cut off. The "
        "paper trains on 384 to 512 tokens (table A1)."
    )
    max_truncated_share: Share = Field(
        description="Share of the texts that may be longer than `max_tokens`; a larger share stops the build."
    )
    long: LongTexts = Field(description="Sources whose documents are read beyond `max_tokens`.")
    prompts: dict[str, str] = Field(
        description='Instructions put before a `query`, a `document` and a text for `clustering`; "" for none.'
    )
    batch_tokens: Count = Field(description="Tokens that the teacher embeds at once, padding included.")

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        expected = ["clustering", "document", "query"]
        if sorted(self.prompts) != expected:
            raise ValueError(
                f"prompts: expected {expected}, got {sorted(self.prompts)}; "
                'write "" where the teacher takes no instruction'
            )
        if isinstance(self.teacher, Endpoint) and self.long.sources:
            raise ValueError(
                f"long.sources: expected none, since a server does not say how it splits texts into tokens, got "
                f"{list(self.long.sources)}; leave the list empty"
            )
        return self
