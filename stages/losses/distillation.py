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


def score_distillation(
    student_queries: Tensor,
    student_documents: Tensor,
    teacher_queries: Tensor,
    teacher_documents: Tensor,
    temperature: float,
) -> Tensor:
    """Match the teacher's scores within the batch, eq. (9) and (10): what eq. (1) is compared with in the paper.

    S_ij = softmax over j of cos(q_i, d_j) / temperature; one side is the mean over i of the sum over j of the squared
    differences of S between student and teacher, and the sides q->d and d->q are added.

    Args:
        student_queries: [B, D], of any length, as all four: normalised here.
        student_documents: [B, D]; row i belongs to query i.
        teacher_queries: [B, T].
        teacher_documents: [B, T].
        temperature: divides the cosines of both models; positive (0.02 in the paper).

    Returns:
        A scalar in [0, 4].

    Raises:
        ValueError: if the shapes disagree.
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


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row with every row: [B, D], [B, D] -> [B, B]."""
    if left.shape != right.shape:
        raise ValueError(
            f"got documents of shape {list(right.shape)} for queries of shape {list(left.shape)}, "
            "expected the same [B, D]: pass one document per query"
        )
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def _score_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of the squared distance between the softmax of logits [B, B]."""
    return (student.softmax(dim=-1) - teacher.softmax(dim=-1)).square().sum(dim=-1).mean()


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Cosine distances over their mean, the diagonal included: [M, D] -> [M, M]."""
    distances = 1 - _cosines(embeddings, embeddings)
    return distances / distances.mean()
