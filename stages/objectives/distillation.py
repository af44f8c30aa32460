"""Embedding distillation: eq. (1) through the student-side projection psi, averaged over Matryoshka prefixes.

Shapes: B batch, D student dimension, T teacher dimension.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from stages.losses.distillation import embedding_distillation
from stages.losses.matryoshka import mean_over_dims, project_prefix
from stages.modeling.encoder import Encoder
from stages.objectives.objective import Objective
from stages.objectives.texts import Texts


class Distillation(Objective):
    """Rows are texts of either side, whichever prompt they stand behind."""

    separable = True

    def __init__(self, encoder: Encoder, projection: nn.Linear, dims: Sequence[int], data: Texts) -> None:
        super().__init__(encoder)
        self.projection = projection
        self.dims = tuple(dims)
        self.data = data

    def texts(self, rows: np.ndarray) -> list[list[int]]:
        """The rows themselves."""
        return self.data[rows]

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: None = None) -> dict[str, Tensor]:
        """Row numbers [B] and embeddings [B, D] -> the distillation term."""
        return {
            "distillation": projected_distillation(
                embeddings, self.data.targets(rows, embeddings.device), self.projection, self.dims
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
