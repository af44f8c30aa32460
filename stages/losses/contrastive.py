"""Contrastive losses.

Shapes: B batch, N hard negatives of an anchor, K hard negatives of a batch, D student dimension, C candidates of an
anchor (C = B + K, and K = B*N where each anchor has N).

The caller chooses the precision: a bfloat16 cosine near 1 is off by up to 0.002, a logit at temperature 0.02 by 0.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    temperature: Tensor | float,
    excluded: Tensor | None = None,
) -> Tensor:
    """InfoNCE with in-batch and hard negatives, eq. (2), over cosine similarities.

    Every anchor is compared with all positives and all hard negatives of the batch, not only with its own, as in
    `MultipleNegativesRankingLoss` of Sentence Transformers. With the first two arguments swapped and no hard negatives
    it is the document-to-query direction of eq. (7).

    >>> queries, documents, negatives = torch.randn(8, 64), torch.randn(8, 64), torch.randn(8, 2, 64)
    >>> loss = info_nce(queries, documents, negatives, temperature=0.02)

    Args:
        anchors: [B, D], of any length: normalised here.
        positives: [B, D]; row i belongs to anchor i.
        negatives: [B, N, D], or [K, D] where anchors have different numbers of them, or None for in-batch negatives
            alone.
        temperature: divides the cosines; positive. A tensor may be learned.
        excluded: [B, C] bool, True where a candidate is a known false negative of the anchor, never the anchor's own
            positive. Candidates are the B positives, then the negatives row by row.

    Returns:
        The mean over anchors, a scalar.

    Raises:
        ValueError: the shapes disagree.
    """
    candidates = _candidates(anchors, positives, negatives)
    logits = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature  # [B, C]
    if excluded is not None:
        logits = logits.masked_fill(_checked_mask(excluded, logits), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(anchors), device=anchors.device))


def false_negatives(anchors: Tensor, positives: Tensor, negatives: Tensor | None, margin: float) -> Tensor:
    """Find candidates that a teacher places about as near as the anchor's own positive.

    A candidate is a false negative where its cosine with the anchor is above (1 - margin) of the positive's, as with
    the guide of GISTEmbed (arXiv 2402.16829), which has no margin.

    >>> excluded = false_negatives(teacher_queries, teacher_documents, None, margin=0.05)
    >>> loss = info_nce(queries, documents, None, temperature=0.02, excluded=excluded)

    Args:
        anchors, positives, negatives: the teacher's vectors, in the shapes of `info_nce`.

    Returns:
        [B, C] bool, the argument `excluded` of `info_nce`.
    """
    candidates = _candidates(anchors, positives, negatives)
    cosines = F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T  # [B, C]
    excluded = cosines > (1 - margin) * cosines.diagonal()[:, None]
    excluded.fill_diagonal_(False)
    return excluded


def _candidates(anchors: Tensor, positives: Tensor, negatives: Tensor | None) -> Tensor:
    """Stack the candidates of all anchors: [B, D], [B, D], [B, N, D] or [K, D] -> [C, D]."""
    if positives.shape != anchors.shape:
        raise ValueError(
            f"got positives of shape {list(positives.shape)} for anchors of shape {list(anchors.shape)}, "
            "expected the same [B, D]: pass one positive per anchor"
        )
    if negatives is None:
        return positives
    is_per_anchor = negatives.ndim == 3 and len(negatives) == len(anchors)
    if negatives.shape[-1] != anchors.shape[-1] or not (is_per_anchor or negatives.ndim == 2):
        raise ValueError(
            f"got negatives of shape {list(negatives.shape)}, expected [{len(anchors)}, N, D] or [K, D] with D = "
            f"{anchors.shape[-1]}: pass the same number of hard negatives for each anchor, or all of them in a row"
        )
    return torch.cat([positives, negatives.flatten(0, -2)])


def _checked_mask(excluded: Tensor, logits: Tensor) -> Tensor:
    """Return the mask [B, C] if it fits the logits and leaves each anchor its positive."""
    if excluded.shape != logits.shape:
        raise ValueError(
            f"got excluded of shape {list(excluded.shape)}, expected {list(logits.shape)}: "
            "mark the B positives, then the B*N negatives, for each anchor"
        )
    assert not excluded.diagonal().any(), "an anchor's own positive is excluded: its loss would be infinite"
    return excluded
