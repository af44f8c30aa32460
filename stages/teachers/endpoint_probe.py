"""The answers of models behind an address to one fixed text, which show when another model answers under a name.

Servers compute a text's vector a little differently each time, so answers are compared by cosine, not by their bytes.

Shapes: T teacher dimension.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

# Rounding and batching leave the answers of one model above this cosine; other models, and other versions of the same
# model, are far below.
SAME_COSINE = 0.999


def first_same_answer(folder: Path, model: str, vector: np.ndarray) -> str:
    """Name the earlier answer of a model that is the same as this one [T]; a new answer is stored and named itself."""
    answers = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
    cosines = []
    for path in sorted(answers.glob("*.safetensors")):
        earlier = load_file(path)["probe"]
        cosines.append(float(earlier @ vector) if earlier.shape == vector.shape else 0.0)
        if cosines[-1] >= SAME_COSINE:
            return path.stem
    if cosines:
        print(
            f"{model} answers otherwise than before (cosine {max(cosines):.3f}): it is another model now, and texts "
            "are embedded anew",
            file=sys.stderr,
        )
    name = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
    answers.mkdir(parents=True, exist_ok=True)
    partial = answers / f"{name}.partial"
    save_file({"probe": vector}, partial)
    partial.rename(answers / f"{name}.safetensors")
    return name
