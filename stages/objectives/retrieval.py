"""The retrieval adapter's objective: InfoNCE with hard negatives, distillation and spread-out regularisation.

Shapes: P pairs, B batch, N hard negatives of a query, D student dimension.
"""

import math
from collections.abc import Mapping, Sequence

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
from stages.objectives.training_texts import Sides
from stages.recipe.adapt import Retrieval

# A learned temperature stays within these bounds, so that neither loss nor gradient runs away.
TEMPERATURE_BOUNDS = (0.005, 0.2)


class Temperature(nn.Module):
    """A learned temperature, positive because its logarithm is the parameter."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """Return the temperature, a scalar.

        The parameter is first clamped to TEMPERATURE_BOUNDS; a clamp on the result would stop its gradient.
        """
        with torch.no_grad():
            self.logarithm.clamp_(*map(math.log, TEMPERATURE_BOUNDS))
        return self.logarithm.exp()


class RetrievalObjective(Objective):
    """Rows are pairs of a query and its document.

    Loss: w_nce * L_NCE(q->d), eq. (2), + w_distillation * eq. (1) on both sides + w_spread_out * eq. (3).

    Args:
        projection: psi, the frozen projection of stage 1.
        pairs: queries and documents. Documents from row P on are explicit negatives, which belong to no pair.
        negatives: [P, N], rows of the documents that are hard negatives of each query.
        given: [P, N], True where the source itself names the negative; False everywhere where it is None.
    """

    def __init__(
        self,
        encoder: Encoder,
        projection: nn.Linear,
        dims: Sequence[int],
        settings: Retrieval,
        pairs: Sides,
        negatives: np.ndarray,
        given: np.ndarray | None = None,
    ) -> None:
        super().__init__(encoder)
        self.projection = projection.requires_grad_(False)
        self.temperature = Temperature(settings.temperature)
        self.dims = tuple(dims)
        self.queries, self.documents = pairs
        self.negatives = negatives
        self.given = np.zeros(negatives.shape, dtype=bool) if given is None else given
        self.false_negative_margin = settings.false_negative_margin
        self.weights = settings.weights.model_dump()

    def texts(self, rows: np.ndarray) -> Tokens:
        """Return queries [B], positives [B], then the hard negatives [B * N]."""
        documents = self.documents[np.concatenate([rows, self.negatives[rows].ravel()])]
        return Tokens.joined((self.queries[rows], documents))

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None = None) -> dict[str, Tensor]:
        """Return the three weighted terms of rows [B] from embeddings [B * (2 + N), D]."""
        negative_documents = self.negatives[rows]  # [B, N]
        queries, positives, rest = embeddings.split([len(rows), len(rows), negative_documents.size])
        negatives = rest.view(*negative_documents.shape, -1)
        targets = [side.targets(rows, queries.device) for side in (self.queries, self.documents)]
        temperature, excluded = self.temperature(), self._excluded(rows, negative_documents, targets)
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

    def _excluded(self, rows: np.ndarray, negative_documents: np.ndarray, targets: Sequence[Tensor]) -> Tensor:
        """Find false negatives [B, B + B * N] among the candidates: a query's own document as another's hard negative
        and, with a margin, candidates with a cosine above (1 - margin) times the positive's, by the teacher's vectors.
        A negative that the source names for the query is never one by the margin.
        """
        anchors, positives = targets
        is_own = rows[:, None] == negative_documents.ravel()
        excluded = np.concatenate([np.zeros((len(rows), len(rows)), dtype=bool), is_own], axis=1)
        own_document = torch.from_numpy(excluded).to(anchors.device)
        if self.false_negative_margin is None:
            return own_document
        negatives = self.documents.targets(negative_documents.ravel(), anchors.device).view(
            *negative_documents.shape, -1
        )
        close = false_negatives(anchors, positives, negatives, self.false_negative_margin)
        num_pairs, num_negatives = negative_documents.shape
        trusted = np.zeros(excluded.shape, dtype=bool)
        for at, flags in enumerate(self.given[rows]):
            start = num_pairs + at * num_negatives
            trusted[at, start : start + num_negatives] = flags
        return own_document | (close & ~torch.from_numpy(trusted).to(anchors.device))


def negative_rows(
    ids: Sequence[str],
    mined: Mapping[str, Sequence[str]],
    num_negatives: int,
    given: Mapping[int, Sequence[int]] | None = None,
) -> np.ndarray:
    """Find the rows [P, num_negatives] of each pair's negatives: those that its source names, then the hardest mined.

    Args:
        ids: names of the P pairs.
        mined: a pair's name -> names of the pairs whose documents are its negatives, the hardest first. A pair that
            is not there was left out by mine as inconsistent, and gets no negative at all.
        given: a pair's row -> rows of documents that its source names as its negatives.

    Returns:
        Rows of documents; -1 where there are too few.
    """
    row_of = {name: row for row, name in enumerate(ids)}
    negatives = np.full((len(ids), num_negatives), -1)
    for row, name in enumerate(ids):
        if name not in mined:
            continue
        of_pair = [*(given or {}).get(row, ()), *(row_of[negative] for negative in mined[name])]
        found = list(dict.fromkeys(of_pair))[:num_negatives]
        negatives[row, : len(found)] = found
    return negatives
