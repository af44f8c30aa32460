"""The classification adapter's objective: InfoNCE both ways over labels, and a regulariser towards the base model.

Shapes: B batch, N negatives of an anchor, D student dimension, M = B * (2 + N) texts.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stages.losses.contrastive import info_nce
from stages.losses.distillation import relational_distillation
from stages.losses.matryoshka import mean_over_dims, prefix
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.adapt import Classification


class ClassificationObjective(Objective):
    """Rows are anchors; each draws a positive of its label and N negatives of other labels at random.

    Loss: w_nce * (L_NCE(q->d) + L_NCE(d->q)), eq. (7), + w_relational * eq. (8) against the model without its adapter.
    In-batch candidates that carry the anchor's own label are no negatives: they are left out of its denominator.

    Raises:
        ValueError: a label has a single row, or there is a single label.
    """

    needs_base = True

    def __init__(
        self,
        encoder: Encoder,
        dims: Sequence[int],
        settings: Classification,
        data: TrainingTexts,
        labels: Sequence[str],
        seed: int,
    ) -> None:
        super().__init__(encoder)
        self.dims = tuple(dims)
        self.data, self.seed = data, seed
        self.num_negatives, self.temperature = settings.num_negatives, settings.temperature
        self.weights = settings.weights.model_dump()
        names, self.labels, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        if single := names[counts == 1].tolist():
            raise ValueError(f"labels of one row have no positive: {single[:5]}; drop them from the source")
        if (others := len(labels) - int(counts.max())) < self.num_negatives:
            if others == 0:
                raise ValueError(f"got rows of one label, {names[0]}, expected at least 2; give rows of another label")
            warnings.warn(
                f"adapt.classification.num_negatives: got {self.num_negatives}, but only {others} rows are of other "
                f"labels than the commonest; each anchor is given {others}",
                stacklevel=2,
            )
            self.num_negatives = others

    def texts(self, rows: np.ndarray) -> Tokens:
        """Return anchors [B], positives [B], then negatives [B * N]."""
        return self.data[self.draw(rows)]

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None) -> dict[str, Tensor]:
        """Return the two weighted terms of rows [B] from embeddings [M, D], with and without the adapter."""
        assert base is not None, "the relational regulariser reads the base's embeddings"
        drawn = self.draw(rows)
        terms = {
            "info_nce": mean_over_dims(lambda dim: self._both_ways(prefix(embeddings, dim), drawn), self.dims),
            "relational": relational_distillation(embeddings, base),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}

    def draw(self, rows: np.ndarray) -> np.ndarray:
        """Draw rows of anchors [B], their positives [B], and N negatives for each [B * N], from seed and rows alone."""
        generator = np.random.default_rng([self.seed, *rows.tolist()])
        positives = [self._positive(generator, row) for row in rows]
        negatives = [
            generator.choice(np.flatnonzero(self.labels != self.labels[row]), self.num_negatives, replace=False)
            for row in rows
        ]
        return np.concatenate([rows, np.asarray(positives), *negatives])

    def _positive(self, generator: np.random.Generator, row: int) -> int:
        same = np.flatnonzero(self.labels == self.labels[row])
        return int(generator.choice(same[same != row]))

    def _both_ways(self, embeddings: Tensor, drawn: np.ndarray) -> Tensor:
        size = len(drawn) // (2 + self.num_negatives)
        anchors, positives, rest = embeddings.split([size, size, len(drawn) - 2 * size])
        labels = torch.as_tensor(self.labels[drawn], device=embeddings.device)
        same = labels[:size, None] == labels[None, size:]  # [B, B + B * N]
        same.fill_diagonal_(False)
        negatives = rest.view(size, self.num_negatives, -1)
        return info_nce(anchors, positives, negatives, self.temperature, same) + info_nce(
            positives, anchors, None, self.temperature, same[:, :size].T
        )
