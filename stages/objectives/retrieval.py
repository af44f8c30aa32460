"""The retrieval adapter's objective: InfoNCE with hard negatives, distillation and spread-out regularisation.

Shapes: B batch, N hard negatives of a query, D student dimension.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from stages.losses.contrastive import false_negatives, info_nce
from stages.losses.matryoshka import mean_over_dims, prefix
from stages.losses.regularization import spread_out
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.distillation import projected_distillation
from stages.objectives.objective import Objective
from stages.objectives.training_texts import Texts

# A learned temperature stays within these bounds, so that neither loss nor gradient runs away.
TEMPERATURE_BOUNDS = (0.005, 0.2)


class Temperature(nn.Module):
    """A learnable temperature, positive by its logarithm."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """The temperature, a scalar within TEMPERATURE_BOUNDS: a step beyond is taken back, so that it still learns."""
        with torch.no_grad():
            self.logarithm.clamp_(*map(math.log, TEMPERATURE_BOUNDS))
        return self.logarithm.exp()


class Retrieval(Objective):
    """Rows are pairs; `negatives` [pairs, N] names documents that are hard negatives of each query.

    Loss: w_nce * L_NCE(q->d), eq. (2), + w_distillation * eq. (1) on both sides + w_spread_out * eq. (3).

    Args:
        false_negative_margin: candidates that score above (1 - margin) of the positive for the teacher are left out of
            eq. (2); None leaves none out.
    """

    def __init__(
        self,
        encoder: Encoder,
        projection: nn.Linear,
        dims: Sequence[int],
        queries: Texts,
        documents: Texts,
        negatives: np.ndarray,
        *,
        temperature: float,
        false_negative_margin: float | None,
        info_nce: float,
        distillation: float,
        spread_out: float,
    ) -> None:
        super().__init__(encoder)
        self.false_negative_margin = false_negative_margin
        self.projection = projection.requires_grad_(False)
        self.temperature = Temperature(temperature)
        self.dims = tuple(dims)
        self.queries, self.documents, self.negatives = queries, documents, negatives
        self.weights = {"info_nce": info_nce, "distillation": distillation, "spread_out": spread_out}

    def texts(self, rows: np.ndarray) -> Tokens:
        """Queries [B], positives [B], then the hard negatives [B * N]."""
        documents = self.documents[np.concatenate([rows, self.negatives[rows].ravel()])]
        return Tokens.joined((self.queries[rows], documents))

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Row numbers [B] and embeddings [B * (2 + N), D] -> the three weighted terms."""
        hard = self.negatives[rows]  # [B, N]
        queries, positives, rest = embeddings.split([len(rows), len(rows), hard.size])
        negatives = rest.view(*hard.shape, -1)
        targets = [side.targets(rows, queries.device) for side in (self.queries, self.documents)]
        temperature, excluded = self.temperature(), self._excluded(rows, hard, targets)
        terms = {
            "info_nce": mean_over_dims(
                lambda dim: info_nce(
                    prefix(queries, dim), prefix(positives, dim), prefix(negatives, dim), temperature, excluded
                ),
                self.dims,
            ),
            "distillation": projected_distillation(queries, targets[0], self.projection, self.dims)
            + projected_distillation(positives, targets[1], self.projection, self.dims),
            "spread_out": spread_out(queries) + spread_out(positives),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}

    def _excluded(self, rows: np.ndarray, hard: np.ndarray, targets: Sequence[Tensor]) -> Tensor:
        """False negatives [B, B + B * N] among the candidates: a query's own document as another's hard negative, and,
        with a margin, what the teacher's vectors of both sides say.
        """
        anchors, positives = targets
        own = np.concatenate([np.zeros((len(rows), len(rows)), dtype=bool), rows[:, None] == hard.ravel()], axis=1)
        excluded = torch.from_numpy(own).to(anchors.device)
        if self.false_negative_margin is None:
            return excluded
        negatives = self.documents.targets(hard.ravel(), anchors.device).view(*hard.shape, -1)
        return excluded | false_negatives(anchors, positives, negatives, self.false_negative_margin)
