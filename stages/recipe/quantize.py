"""Section `quantize`: the release and its formats."""

from typing import Any, Literal

from pydantic import Field, field_validator

from stages.recipe.fields import Count, Positive, Section, Share, Tokens


class ParityLimits(Section):
    """How closely a format must agree with the trained model in torch; a format below a limit is not released."""

    cosine_min: Share = Field(description="Least cosine between the two vectors of any compared text.")
    cosine_mean: Share = Field(description="Least mean of these cosines.")
    top1: Share = Field(description="Least share of the texts that keep their nearest other text.")
    spearman: Share = Field(description="Least Spearman correlation of the similarities of all pairs of texts.")


class Parity(Section):
    """The comparison of every format, read with its consumer's packages alone, with the trained model."""

    max_tokens: Tokens = Field(
        description="Tokens of the longest text whose vectors are compared; token ids are compared for longer ones too."
    )
    num_texts: Count = Field(description="Training texts that are compared beside the fixed set.")
    float32: ParityLimits = Field(description="Limits of formats with float32 weights.")
    int8: ParityLimits = Field(description="Limits of formats with int8 weights.")


class Quantize(Section):
    """What the release holds, and how its models read texts."""

    license: str = Field(description="Licence of the released weights.")
    max_tokens: Tokens = Field(
        description="Tokens that the released models read of a text. The paper's read 8,192 (nano) or 32,768 (small)."
    )
    rope_theta: Positive | None = Field(
        description="Base of the rotary position embedding of the released models; null keeps the student's. The paper "
        "raises it to 1,000,000 for nano and 3,500,000 for small."
    )
    num_calibration_texts: Count = Field(
        description="Training texts from which the ranges of int8 embeddings are measured."
    )
    formats: tuple[Literal["onnx", "onnx-int8", "openvino-int8"], ...] = Field(
        description="Formats of the release beside adapters and merged models; empty for none. A format that fails "
        "the parity check is left out."
    )
    parity: Parity = Field(description="The parity check.")

    @field_validator("formats", mode="before")
    @classmethod
    def _check_formats(cls, formats: Any) -> Any:
        if isinstance(formats, list | tuple):
            if "gguf" in formats:
                raise ValueError(
                    "gguf is not released: no kept package loads it from Python here, so its vectors could not be "
                    "compared with the model's; convert merged/<task> with llama.cpp and compare them yourself"
                )
            if len(set(map(str, formats))) < len(formats):
                raise ValueError("expected each format once")
        return formats
