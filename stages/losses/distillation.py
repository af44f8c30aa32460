"""Distillation losses.

Shapes: B batch, D student dimension, T teacher dimension, M texts of a batch (anchors, positives and negatives).
Targets are constants: pass them without a gradient.
"""

import torch.nn.functional as F
from torch import Tensor


def embedding_distillation(projected: Tensor, teacher: Tensor) -> Tensor:
    """Cosine distance to the teacher's embeddings, eq. (1), of a single side.

    The paper sums over the batch and over both sides. This is the mean over the batch, so that the gradient does not
    grow with B, and the caller adds the two sides.

    >>> projection = torch.nn.Linear(384, 1024)  # psi of the paper
    >>> loss = embedding_distillation(projection(embeddings), teacher)

    Args:
        projected: [B, T], the student's embeddings in the teacher's space.
        teacher: [B, T].

    Returns:
        The mean over rows of 1 - cosine, a scalar in [0, 2].

    Raises:
        ValueError: the shapes disagree.
    """
    if projected.shape != teacher.shape:
        raise ValueError(
            f"got projected of shape {list(projected.shape)} for a teacher of shape {list(teacher.shape)}, "
            "expected the same [B, T]: project the student's embeddings to the teacher's dimension first"
        )
    return (1 - F.cosine_similarity(projected, teacher, dim=-1)).mean()


def score_distillation(
    student_queries: Tensor,
    student_documents: Tensor,
    teacher_queries: Tensor,
    teacher_documents: Tensor,
    temperature: float,
) -> Tensor:
    """Distance to the teacher's scores within the batch, eq. (9) and (10), an ablation of eq. (1) in the paper.

    S_ij = softmax over j of cos(q_i, d_j) / temperature. A side is the mean over i of the sum over j of the squared
    differences of S between student and teacher; the sides q->d and d->q are added.

    >>> teacher = torch.randn(8, 1024), torch.randn(8, 1024)
    >>> loss = score_distillation(torch.randn(8, 64), torch.randn(8, 64), *teacher, temperature=0.02)

    Args:
        student_queries: [B, D]; all four may be of any length and are normalised here.
        student_documents: [B, D]; row i belongs to query i.
        teacher_queries: [B, T].
        teacher_documents: [B, T].
        temperature: divides the cosines of both models; positive (0.02 in the paper).

    Returns:
        A scalar in [0, 4].

    Raises:
        ValueError: the shapes disagree.
    """
    student = _cosines(student_queries, student_documents) / temperature
    teacher = _cosines(teacher_queries, teacher_documents) / temperature
    if student.shape != teacher.shape:
        raise ValueError(
            f"got {len(student)} pairs of the student and {len(teacher)} of the teacher, expected the same B: "
            "pass both models' embeddings of the same texts"
        )
    return _score_distance(student, teacher) + _score_distance(student.T, teacher.T)


def relational_distillation(student: Tensor, base: Tensor) -> Tensor:
    """Difference between the geometry of a batch with and without the adapter, eq. (8).

    Only distances relative to their mean count, so the student may spread the whole batch out, or draw it together,
    without a penalty.

    >>> with torch.no_grad(), without_adapter(encoder):
    ...     base = encoder(**batch)
    >>> loss = relational_distillation(encoder(**batch), base)

    Args:
        student: [M, D], embeddings with the adapter.
        base: [M, D], embeddings of the same texts without it.

    Returns:
        The mean over all M^2 entries of the squared difference of normalised distances, a scalar.
    """
    return F.mse_loss(_relative_distances(student), _relative_distances(base))


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    """Compute the cosine of every row with every row: [B, D], [B, D] -> [B, B]."""
    if left.shape != right.shape:
        raise ValueError(
            f"got documents of shape {list(right.shape)} for queries of shape {list(left.shape)}, "
            "expected the same [B, D]: pass one document per query"
        )
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def _score_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Average over rows the squared distance between the softmax of logits [B, B]."""
    return (student.softmax(dim=-1) - teacher.softmax(dim=-1)).square().sum(dim=-1).mean()


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Divide cosine distances by their mean, the diagonal included: [M, D] -> [M, M]."""
    distances = 1 - _cosines(embeddings, embeddings)
    return distances / distances.mean()
