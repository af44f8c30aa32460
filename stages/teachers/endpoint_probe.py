"""What a model behind an address answered to one fixed text, so that it is noticed when another one answers.

Servers compute a text's vector a little differently each time, so answers are compared, not their bytes.

Shapes: T teacher dimension.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

# Rounding and batching leave answers of one model above it; another model, or another version of it, is far below.
SAME_COSINE = 0.999


def same_probe(folder: Path, model: str, vector: np.ndarray) -> str:
    """Name of the answer that a model gave first, where this one [T] is the same; else of this one, now kept."""
    of_model = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
    cosines = []
    for path in sorted(of_model.glob("*.safetensors")):
        known = load_file(path)["probe"]
        cosines.append(float(known @ vector) if known.shape == vector.shape else 0.0)
        if cosines[-1] >= SAME_COSINE:
            return path.stem
    if cosines:
        print(
            f"{model} answers otherwise than before (cosine {max(cosines):.3f}): it is another model now, and texts "
            "are embedded anew",
            file=sys.stderr,
        )
    name = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
    of_model.mkdir(parents=True, exist_ok=True)
    partial = of_model / f"{name}.partial"
    save_file({"probe": vector}, partial)
    partial.rename(of_model / f"{name}.safetensors")
    return name
