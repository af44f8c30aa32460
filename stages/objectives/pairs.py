"""Ablations of stage 1 that need no projection: the student learns from whole pairs of query and document.

Shapes: B batch, D student dimension.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from stages.losses.contrastive import info_nce
from stages.losses.distillation import score_distillation
from stages.losses.matryoshka import mean_over_dims, prefix
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.objectives.training_texts import Sides


class PairObjective(Objective):
    """Rows are pairs; a loss of the unit prefixes of both sides, averaged over Matryoshka dimensions."""

    term: str

    def __init__(self, encoder: Encoder, dims: Sequence[int], pairs: Sides, temperature: float) -> None:
        super().__init__(encoder)
        self.dims = tuple(dims)
        self.queries, self.documents = pairs
        self.temperature = temperature

    def texts(self, rows: np.ndarray) -> Tokens:
        """Return queries [B], then their documents [B]."""
        return Tokens.joined((self.queries[rows], self.documents[rows]))

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Return the loss term of rows [B] from embeddings [2 * B, D]."""
        queries, documents = embeddings.split(len(rows))
        return {
            self.term: mean_over_dims(
                lambda dim: self.loss(rows, prefix(queries, dim), prefix(documents, dim)), self.dims
            )
        }

    @abstractmethod
    def loss(self, rows: np.ndarray, queries: Tensor, documents: Tensor) -> Tensor:
        """Return the loss, a scalar, of rows [B] at dimension K, from unit vectors [B, K]."""


class ContrastiveObjective(PairObjective):
    """InfoNCE q->d with in-batch negatives, eq. (2) without hard negatives; the teacher is not read."""

    term = "info_nce"

    def loss(self, rows: np.ndarray, queries: Tensor, documents: Tensor) -> Tensor:
        """See the base class."""
        return info_nce(queries, documents, None, self.temperature)


class ScoreDistillationObjective(PairObjective):
    """Every prefix of the student matches the teacher's scores within the batch, eq. (9) and (10)."""

    term = "score_distillation"

    def loss(self, rows: np.ndarray, queries: Tensor, documents: Tensor) -> Tensor:
        """See the base class."""
        targets = [side.targets(rows, queries.device) for side in (self.queries, self.documents)]
        return score_distillation(queries, documents, targets[0], targets[1], self.temperature)
