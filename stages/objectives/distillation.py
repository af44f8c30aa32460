"""Embedding distillation: eq. (1) through the student-side projection psi, averaged over Matryoshka prefixes.

Shapes: B batch, D student dimension, T teacher dimension.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from stages.losses.distillation import embedding_distillation
from stages.losses.matryoshka import mean_over_dims, project_prefix
from stages.modeling.encoder import Encoder
from stages.objectives.texts import Texts


class Distillation(nn.Module):
    """Rows are texts of either side, whichever prompt they stand behind."""

    def __init__(self, encoder: Encoder, projection: nn.Linear, dims: Sequence[int], texts: Texts) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.dims = tuple(dims)
        self.texts = texts

    def forward(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Row numbers [B] -> the distillation term."""
        embeddings = self.texts.embed(self.encoder, rows)
        return {
            "distillation": projected_distillation(
                embeddings, self.texts.targets(rows, embeddings.device), self.projection, self.dims
            )
        }


def projected_distillation(embeddings: Tensor, teacher: Tensor, projection: nn.Linear, dims: Sequence[int]) -> Tensor:
    """Mean over prefixes of the distance between psi_k(embeddings [B, D]) and the teacher's vectors [B, T]."""
    return mean_over_dims(
        lambda dim: embedding_distillation(
            project_prefix(embeddings, projection.weight, projection.bias, dim), teacher
        ),
        dims,
    )
