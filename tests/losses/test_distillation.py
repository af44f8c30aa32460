import math
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from torch import Tensor
from torch.nn.functional import normalize

from stages.losses.distillation import embedding_distillation, relational_distillation, score_distillation

NO_MODEL: Any = None  # not asked where embeddings are passed


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_embedding_distillation_by_hand() -> None:
    projected = torch.tensor([[3.0, 4, 0], [0, 0, 2]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0, 0], [0, 0, -1]], dtype=torch.float64)
    expected = ((1 - 3 / math.sqrt(3**2 + 4**2)) + (1 - -1)) / 2
    assert embedding_distillation(projected, teacher).item() == pytest.approx(expected, abs=1e-12)


def test_embedding_distillation_equals_sentence_transformers() -> None:
    sides = [draw(6, 8).requires_grad_(), draw(6, 8).mul(2).requires_grad_()]
    teachers = [draw(6, 9)[:, :8], draw(6, 10)[:, :8]]
    theirs = EmbedDistillLoss(NO_MODEL, distance_metric="cosine")
    expected = 2 * theirs.compute_loss_from_embeddings(sides, teachers)
    loss = embedding_distillation(sides[0], teachers[0]) + embedding_distillation(sides[1], teachers[1])
    # Eq. (1) adds the two sides, Sentence Transformers averages them: twice as much.
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(loss, sides)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, sides), rtol=0, atol=1e-10)


def test_embedding_distillation_ignores_lengths() -> None:
    projected, teacher = draw(6, 8), draw(6, 9)[:, :8]
    loss = embedding_distillation(projected, teacher)
    torch.testing.assert_close(embedding_distillation(5 * projected, teacher / 3), loss)


def test_embedding_distillation_refuses_shapes() -> None:
    with pytest.raises(ValueError, match=r"got projected of shape \[6, 4\].*project the student's"):
        embedding_distillation(draw(6, 4), draw(6, 8))


def test_score_distillation_by_hand() -> None:
    queries = torch.tensor([[1.0, 0, 0], [0, 2, 0]], dtype=torch.float64)
    documents = torch.tensor([[3.0, 0, 4], [4, 3, 0]], dtype=torch.float64)
    # Cosines of the student by query: .6, .8 and 0, .6; of the teacher, whose documents are its queries: 1, 0 and 0, 1.
    temperature = math.log(2) ** -1  # so that a softmax weighs by powers of two
    student = [[2**0.6, 2**0.8], [2**0, 2**0.6]]
    teacher = [[2.0, 1], [1, 2]]

    def distance(student: list[list[float]], teacher: list[list[float]]) -> float:
        rows = zip(student, teacher, strict=True)
        return sum((s / sum(mine) - t / sum(its)) ** 2 for mine, its in rows for s, t in zip(mine, its, strict=True))

    def turned(matrix: list[list[float]]) -> list[list[float]]:
        return [list(column) for column in zip(*matrix, strict=True)]

    expected = (distance(student, teacher) + distance(turned(student), turned(teacher))) / 2
    loss = score_distillation(queries, documents, queries, 5 * queries, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert score_distillation(queries, documents, 2 * queries, documents, 0.02).item() == pytest.approx(0, abs=1e-12)


def test_score_distillation_reaches_its_bound() -> None:
    """A student that is certain of the wrong document in both directions is 2 away in each."""
    eye = torch.eye(2, dtype=torch.float64)
    assert score_distillation(eye, eye.flip(0), eye, eye, 0.001).item() == pytest.approx(4)


def test_score_distillation_takes_a_teacher_of_another_dimension_and_its_gradient_is_right() -> None:
    sides = (draw(4, 3).requires_grad_(), draw(4, 5)[:, :3].requires_grad_())
    teachers = (draw(4, 6), draw(4, 7)[:, :6])
    assert torch.autograd.gradcheck(lambda q, d: score_distillation(q, d, *teachers, 0.5), sides)


def test_score_distillation_refuses_shapes() -> None:
    with pytest.raises(ValueError, match=r"got documents of shape \[5, 3\] for queries of .*one document"):
        score_distillation(draw(4, 3), draw(5, 3), draw(4, 6), draw(4, 6), 0.02)
    with pytest.raises(ValueError, match=r"got 4 pairs of the student and 5 of the teacher.*same texts"):
        score_distillation(draw(4, 3), draw(4, 3), draw(5, 6), draw(5, 6), 0.02)


def test_relational_distillation_by_hand() -> None:
    student = torch.tensor([[1.0, 0, 0], [0, 2, 0]], dtype=torch.float64)  # distances 0, 1, 1, 0; mean 1/2
    base = torch.tensor([[1.0, 0, 0], [3, 4, 0]], dtype=torch.float64)  # distances 0, .4, .4, 0; mean .2
    assert relational_distillation(student, base).item() == pytest.approx(0, abs=1e-12)  # both 0, 2, 2, 0

    student = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=torch.float64)
    base = torch.eye(3, dtype=torch.float64)
    # Student: 4 of 9 distances are 1 (1-2, 1-3 and back), mean 4/9. Base: 6 of 9 are 1, mean 6/9.
    expected = (4 * (9 / 4 - 9 / 6) ** 2 + 2 * (0 - 9 / 6) ** 2) / 9
    assert relational_distillation(student, base).item() == pytest.approx(expected, abs=1e-12)


def test_relational_distillation_of_equals_is_zero() -> None:
    student = draw(6, 8).requires_grad_()
    loss = relational_distillation(student, student.detach())
    assert loss == 0
    assert (torch.autograd.grad(loss, student)[0] == 0).all()


def test_relational_distillation_ignores_a_global_scale_of_distances() -> None:
    student, base = draw(6, 8), draw(6, 9)
    # Appending a constant coordinate shrinks every distance by the same factor:
    # (sqrt(3/4), x/2) . (sqrt(3/4), y/2) = 3/4 + x.y/4, so 1 - phi becomes a quarter of what it was.
    shrunk = torch.cat([torch.full((6, 1), math.sqrt(0.75)), normalize(student) / 2], dim=1)
    torch.testing.assert_close(relational_distillation(shrunk, base), relational_distillation(student, base))
    assert relational_distillation(shrunk, student) < 1e-20 < relational_distillation(student, base)


def test_relational_distillation_gradient() -> None:
    student, base = draw(4, 3).requires_grad_(), draw(4, 5)
    assert torch.autograd.gradcheck(lambda s: relational_distillation(s, base), (student,))
