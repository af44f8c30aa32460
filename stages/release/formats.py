"""Formats of a release: the packages that a consumer installs for each, and the limits that each must meet."""

from dataclasses import dataclass
from typing import Literal

WeightKind = Literal["float32", "int8"]


@dataclass(frozen=True)
class Format:
    """A way to load the models of a release; its folder has the format's name and holds one folder per task."""

    name: str
    packages: tuple[str, ...]  # installed by its consumer
    weights: WeightKind  # also the name of its limits in the recipe


# A release must have these two: the models as other tools load them, and the base with its adapters.
NEEDED = (
    Format("adapters", ("peft", "transformers", "torch"), "float32"),
    Format("merged", ("sentence-transformers",), "float32"),
)
# Written where the recipe names them, released where they pass.
OPTIONAL = (
    Format("onnx", ("onnxruntime", "tokenizers", "numpy"), "float32"),
    Format("onnx-int8", ("onnxruntime", "tokenizers", "numpy"), "int8"),
    Format("openvino-int8", ("openvino", "tokenizers", "numpy"), "int8"),
)
FORMATS = {form.name: form for form in (*NEEDED, *OPTIONAL)}
