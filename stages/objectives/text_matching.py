"""The text-matching adapter's objective: CoSENT on scored pairs, InfoNCE and distillation on pairs without scores.

Shapes: B batch, K explicit negatives of a batch, D student dimension.
"""

from collections.abc import Mapping, Sequence

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
from stages.objectives.training_texts import Sides
from stages.recipe.adapt import TextMatching


class TextMatchingObjective(Objective):
    """Rows below `len(scores)` are scored pairs, the others have no scores; a batch holds a single kind.

    Loss: eq. (5) on scored batches, else w_nce * L_NCE + w_distillation * L_distill (1 : 2 in the paper).

    Args:
        projection: psi, the frozen projection of stage 1.
        pairs: left and right texts. Right texts from the number of left ones on are explicit negatives.
        negatives: row of a pair -> row of the right text that is its negative.
    """

    scores: Tensor  # of the scored pairs; a buffer, so that it follows the model to its device

    def __init__(
        self,
        encoder: Encoder,
        projection: nn.Linear,
        dims: Sequence[int],
        settings: TextMatching,
        pairs: Sides,
        scores: np.ndarray,
        negatives: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(encoder)
        self.projection = projection.requires_grad_(False)
        self.dims = tuple(dims)
        self.left, self.right = pairs
        self.negatives = dict(negatives or {})
        self.register_buffer("scores", torch.tensor(scores, dtype=torch.float32), persistent=False)
        self.temperature, self.cosent_temperature = settings.temperature, settings.cosent_temperature
        self.weights = settings.weights.model_dump()

    def texts(self, rows: np.ndarray) -> Tokens:
        """Return left texts [B], right texts [B], then the explicit negatives [K]."""
        right = [*rows.tolist(), *self._negatives_of(rows)]
        return Tokens.joined((self.left[rows], self.right[right]))

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Return the weighted terms of the batch's kind, of rows [B] from embeddings [2 * B + K, D]."""
        is_scored = rows < len(self.scores)
        assert is_scored.all() or not is_scored.any(), "a batch holds pairs of one kind"
        left, right, negatives = embeddings.split([len(rows), len(rows), len(embeddings) - 2 * len(rows)])
        terms = self._scored(left, right, rows) if is_scored.all() else self._unscored(left, right, negatives, rows)
        return {name: self.weights[name] * term for name, term in terms.items()}

    def _scored(self, left: Tensor, right: Tensor, rows: np.ndarray) -> dict[str, Tensor]:
        scores = self.scores[torch.as_tensor(rows)]

        def loss(dim: int) -> Tensor:
            similarities = F.cosine_similarity(prefix(left, dim), prefix(right, dim), dim=-1)
            return cosent(similarities, scores, self.cosent_temperature)

        return {"cosent": mean_over_dims(loss, self.dims)}

    def _negatives_of(self, rows: np.ndarray) -> list[int]:
        return [self.negatives[row] for row in rows.tolist() if row in self.negatives]

    def _unscored(self, left: Tensor, right: Tensor, negatives: Tensor, rows: np.ndarray) -> dict[str, Tensor]:
        # A negative of one pair may be the right text of another, which it must not be told apart from.
        is_own = rows[:, None] == np.asarray([*rows, *self._negatives_of(rows)])
        np.fill_diagonal(is_own, val=False)
        excluded = torch.as_tensor(is_own, device=left.device) if len(negatives) else None
        targets = [side.targets(rows, left.device) for side in (self.left, self.right)]
        return {
            "info_nce": mean_over_dims(
                lambda dim: info_nce(
                    prefix(left, dim), prefix(right, dim), prefix(negatives, dim), self.temperature, excluded
                ),
                self.dims,
            ),
            "distillation": projected_distillation(left, targets[0], self.projection, self.dims)
            + projected_distillation(right, targets[1], self.projection, self.dims),
        }
