"""Embedding distillation, eq. (1), averaged over Matryoshka prefixes: on the student's side or, in an ablation, the
teacher's.

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
from stages.objectives.training_texts import Texts


class Distillation(Objective):
    """Rows are texts of either side, whichever prompt they stand behind; psi, R^D -> R^T, is on the student's side."""

    separable = True

    def __init__(self, encoder: Encoder, projection: nn.Linear, dims: Sequence[int], data: Texts) -> None:
        super().__init__(encoder)
        self.projection = projection
        self.dims = tuple(dims)
        self.data = data

    def texts(self, rows: np.ndarray) -> Tokens:
        """The rows themselves."""
        return self.data[rows]

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Row numbers [B] and embeddings [B, D] -> the distillation term."""
        return {"distillation": self.distance(embeddings, self.data.targets(rows, embeddings.device))}

    def distance(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """Between embeddings [B, D] and the teacher's vectors [B, T]."""
        return projected_distillation(embeddings, teacher, self.projection, self.dims)


class TeacherSideDistillation(Distillation):
    """The projection, R^T -> R^D, is on the teacher's side: 1 - cos(student, projection(teacher)).

    For dimension k both vectors are cut to their first k coordinates. A trained projection may lower the loss by making
    all targets alike, which the paper saw (figure 4): the student then learns to tell nothing apart.
    """

    def distance(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """Between embeddings [B, D] and the projection of the teacher's vectors [B, T]."""
        targets = self.projection(teacher)
        return mean_over_dims(lambda dim: embedding_distillation(embeddings[:, :dim], targets[:, :dim]), self.dims)


def projected_distillation(embeddings: Tensor, teacher: Tensor, projection: nn.Linear, dims: Sequence[int]) -> Tensor:
    """Mean over prefixes of the distance between psi_k(embeddings [B, D]) and the teacher's vectors [B, T]."""
    return mean_over_dims(
        lambda dim: embedding_distillation(
            project_prefix(embeddings, projection.weight, projection.bias, dim), teacher
        ),
        dims,
    )
