"""What a release consists of: its formats, what a consumer installs for each, and which limits each is held to."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["float32", "int8"]


@dataclass(frozen=True)
class Format:
    """A way to load the models of a release; each has a folder of its name with one folder a task."""

    name: str
    packages: tuple[str, ...]  # what its consumer installs
    kind: Kind  # of its weights: which limits of the recipe it is held to


# Without one of these there is no release: what other people's tools load, and the parts that it was made of.
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
FORMATS = {one.name: one for one in (*NEEDED, *OPTIONAL)}
