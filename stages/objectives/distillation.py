"""Embedding distillation, eq. (1), averaged over Matryoshka dimensions.

Shapes: B batch, D student dimension, T teacher dimension.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from stages.losses.distillation import embedding_distillation
from stages.losses.matryoshka import mean_over_dims, project_prefix
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.objectives.training_texts import TrainingTexts


class DistillationObjective(Objective):
    """Rows are texts of either side. The projection psi, R^D -> R^T, is on the student's side."""

    separable = True

    def __init__(self, encoder: Encoder, projection: nn.Linear, dims: Sequence[int], data: TrainingTexts) -> None:
        super().__init__(encoder)
        self.projection = projection
        self.dims = tuple(dims)
        self.data = data

    def texts(self, rows: np.ndarray) -> Tokens:
        """Return the rows' own texts."""
        return self.data[rows]

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Return the term `distillation` of rows [B] from embeddings [B, D]."""
        return {"distillation": self.distance(embeddings, self.data.targets(rows, embeddings.device))}

    def distance(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """Compare embeddings [B, D] with the teacher's vectors [B, T]."""
        return projected_distillation(embeddings, teacher, self.projection, self.dims)


class TeacherSideDistillationObjective(DistillationObjective):
    """An ablation: the projection, R^T -> R^D, is on the teacher's side, 1 - cos(student, projection(teacher)).

    For dimension k both vectors are cut to their first k coordinates. A trained projection may lower the loss by making
    all targets alike, as the paper saw (figure 4); the student then learns to tell nothing apart.
    """

    def distance(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """Compare embeddings [B, D] with the projection of the teacher's vectors [B, T]."""
        targets = self.projection(teacher)
        return mean_over_dims(lambda dim: embedding_distillation(embeddings[:, :dim], targets[:, :dim]), self.dims)


def projected_distillation(embeddings: Tensor, teacher: Tensor, projection: nn.Linear, dims: Sequence[int]) -> Tensor:
    """Average over dimensions k the distance between psi_k(embeddings [B, D]) and the teacher's vectors [B, T]."""
    return mean_over_dims(
        lambda dim: embedding_distillation(
            project_prefix(embeddings, projection.weight, projection.bias, dim), teacher
        ),
        dims,
    )
