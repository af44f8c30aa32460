"""Distillation losses.

Shapes: B batch, D student dim, T teacher dim, M rows of a batch (anchors, positives and negatives together).
Targets are constants: pass them without a gradient.
"""

import torch.nn.functional as F
from torch import Tensor


def embedding_distillation(projected: Tensor, teacher: Tensor) -> Tensor:
    """Cosine distance to the teacher's embeddings, eq. (1), of one side.

    The paper sums over the batch and over both sides; this is the mean over the batch, so that the gradient
    does not grow with B, and the caller adds the two sides.

    Args:
        projected: [B, T], the student's embeddings in the teacher's space (psi of the paper).
        teacher: [B, T].

    Returns:
        mean over rows of 1 - cosine, a scalar in [0, 2].

    Raises:
        ValueError: if the shapes disagree.
    """
    if projected.shape != teacher.shape:
        raise ValueError(
            f"got projected of shape {list(projected.shape)} for a teacher of shape {list(teacher.shape)}, "
            "expected the same [B, T]: project the student's embeddings to the teacher's dimension first"
        )
    return (1 - F.cosine_similarity(projected, teacher, dim=-1)).mean()


def relational_distillation(student: Tensor, base: Tensor) -> Tensor:
    """Keep the geometry of the base model's embeddings, eq. (8).

    Only distances relative to their mean count, so the student may spread the whole batch out, or draw it
    together, without a penalty.

    Args:
        student: [M, D], embeddings with the adapter.
        base: [M, D], embeddings of the same texts without it.

    Returns:
        mean over all M^2 entries of the squared difference of normalised distances, a scalar.
    """
    return F.mse_loss(_relative_distances(student), _relative_distances(base))


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Cosine distances over their mean, the diagonal included: [M, D] -> [M, M]."""
    unit = F.normalize(embeddings, dim=-1)
    distances = 1 - unit @ unit.T
    return distances / distances.mean()
