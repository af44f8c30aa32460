"""The ablation with a projection on the teacher's side."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from stages.objectives.distillation import TeacherSideDistillationObjective
from stages.objectives.training_texts import TrainingTexts

NO_MODEL: Any = nn.Identity()  # an objective takes embeddings; the encoder is the loop's
DIMS = (2, 5)
ROWS = np.array([3, 0])


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def objective() -> TeacherSideDistillationObjective:
    """A teacher of 7 dimensions projected down to the student's 5."""
    torch.manual_seed(0)
    return TeacherSideDistillationObjective(
        NO_MODEL, nn.Linear(7, 5), DIMS, TrainingTexts([[row] for row in range(4)], draw(1, 4, 7).half())
    )


def test_teacher_side_compares_prefixes_in_the_students_space(objective: TeacherSideDistillationObjective) -> None:
    embeddings = draw(2, 2, 5).requires_grad_()
    terms = objective(ROWS, embeddings, None)
    assert objective.data.teacher is not None
    projection = objective.projection
    targets = objective.data.teacher[ROWS].float() @ projection.weight.T + projection.bias
    expected = [(1 - cosine_similarity(embeddings[:, :dim], targets[:, :dim])).mean() for dim in DIMS]
    assert set(terms) == {"distillation"}
    torch.testing.assert_close(terms["distillation"], torch.stack(expected).mean())
    gradients = torch.autograd.grad(terms["distillation"], [embeddings, projection.weight, projection.bias])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_teacher_side_can_be_frozen(objective: TeacherSideDistillationObjective) -> None:
    objective.projection.requires_grad_(False)
    embeddings = draw(2, 2, 5).requires_grad_()
    objective(ROWS, embeddings, None)["distillation"].backward()
    assert embeddings.grad is not None
    assert objective.projection.weight.grad is None


def test_a_trained_teacher_side_has_a_trivial_solution(objective: TeacherSideDistillationObjective) -> None:
    """A projection that gives every text the same target, and a student that says that: loss 0, nothing learned."""
    with torch.no_grad():
        objective.projection.weight.zero_()
    same = normalize(objective.projection.bias, dim=0).expand(2, 5)
    assert objective(ROWS, same, None)["distillation"].item() == pytest.approx(0, abs=1e-6)


def test_the_loop_may_take_it_micro_batch_by_micro_batch(objective: TeacherSideDistillationObjective) -> None:
    embeddings = draw(2, 2, 5)
    parts = [objective(ROWS[[at]], embeddings[[at]], None)["distillation"] for at in (0, 1)]
    assert objective.separable
    torch.testing.assert_close(objective(ROWS, embeddings, None)["distillation"], torch.stack(parts).mean())
