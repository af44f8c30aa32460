"""The file of the projection psi from the student's space to the teacher's; stage 1 leaves it for stage 2.

Shapes: D student dimension, T teacher dimension.
"""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn


def write_projection(projection: nn.Linear, path: Path) -> None:
    """Write psi: R^D -> R^T."""
    save_file({name: tensor.contiguous() for name, tensor in projection.state_dict().items()}, path)


def read_projection(path: Path) -> nn.Linear:
    """Read psi: R^D -> R^T."""
    state = load_file(path)
    projection = nn.Linear(state["weight"].shape[1], state["weight"].shape[0])
    projection.load_state_dict(state)
    return projection
