"""The text-matching adapter's objective: CoSENT on scored pairs, InfoNCE + distillation on pairs without scores.

Shapes: B batch, D student dimension.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.losses.contrastive import info_nce
from stages.losses.matryoshka import mean_over_dims, prefix
from stages.losses.ranking import cosent
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.distillation import projected_distillation
from stages.objectives.objective import Objective
from stages.objectives.training_texts import Texts


class TextMatching(Objective):
    """Rows below `len(scores)` are scored pairs, the others pairs without scores; a batch holds one of both kinds.

    Loss: eq. (5) on scored batches, else w_nce * L_NCE + w_distillation * L_distill (1 : 2 in the paper).
    """

    scores: Tensor  # of the scored pairs; a buffer, so that it follows the model to its device

    def __init__(
        self,
        encoder: Encoder,
        projection: nn.Linear,
        dims: Sequence[int],
        left: Texts,
        right: Texts,
        scores: np.ndarray,
        *,
        temperature: float,
        cosent_temperature: float,
        cosent: float,
        info_nce: float,
        distillation: float,
    ) -> None:
        super().__init__(encoder)
        self.projection = projection.requires_grad_(False)
        self.dims = tuple(dims)
        self.left, self.right = left, right
        self.register_buffer("scores", torch.tensor(scores, dtype=torch.float32), persistent=False)
        self.temperature, self.cosent_temperature = temperature, cosent_temperature
        self.weights = {"cosent": cosent, "info_nce": info_nce, "distillation": distillation}

    def texts(self, rows: np.ndarray) -> Tokens:
        """Left texts [B], then right texts [B]."""
        return Tokens.joined((self.left[rows], self.right[rows]))

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Row numbers [B] and embeddings [2 * B, D] -> the terms of the batch's kind, weighted."""
        is_scored = rows < len(self.scores)
        assert is_scored.all() or not is_scored.any(), "a batch holds pairs of one kind"
        left, right = embeddings.split(len(rows))
        terms = self._scored(left, right, rows) if is_scored.all() else self._unscored(left, right, rows)
        return {name: self.weights[name] * term for name, term in terms.items()}

    def _scored(self, left: Tensor, right: Tensor, rows: np.ndarray) -> dict[str, Tensor]:
        scores = self.scores[torch.as_tensor(rows)]

        def loss(dim: int) -> Tensor:
            similarities = F.cosine_similarity(prefix(left, dim), prefix(right, dim), dim=-1)
            return cosent(similarities, scores, self.cosent_temperature)

        return {"cosent": mean_over_dims(loss, self.dims)}

    def _unscored(self, left: Tensor, right: Tensor, rows: np.ndarray) -> dict[str, Tensor]:
        return {
            "info_nce": mean_over_dims(
                lambda dim: info_nce(prefix(left, dim), prefix(right, dim), None, self.temperature), self.dims
            ),
            "distillation": projected_distillation(
                left, self.left.targets(rows, left.device), self.projection, self.dims
            )
            + projected_distillation(right, self.right.targets(rows, left.device), self.projection, self.dims),
        }
