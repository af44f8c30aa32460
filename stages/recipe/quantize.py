"""Section `quantize`: the release and its formats."""

from typing import Any, Literal

from pydantic import field_validator

from stages.recipe.fields import Count, Positive, Section, Share, Tokens


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
