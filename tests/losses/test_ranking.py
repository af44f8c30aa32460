import math
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor
from torch.nn.functional import cosine_similarity

from stages.losses.ranking import cosent

NO_MODEL: Any = None  # not asked where embeddings are passed


@pytest.fixture
def similarities() -> Tensor:
    return torch.tensor([0.9, 0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)


def test_cosent_by_hand() -> None:
    similarities = torch.tensor([0.1, 0.7, 0.4], dtype=torch.float64)
    scores = torch.tensor([5.0, 1.0, 1.0])  # only pair 1 ranks above others; pairs 2 and 3 tie
    expected = math.log(1 + math.exp((0.7 - 0.1) / 0.5) + math.exp((0.4 - 0.1) / 0.5))
    assert cosent(similarities, scores, 0.5).item() == pytest.approx(expected, abs=1e-12)


def test_cosent_equals_sentence_transformers() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 32, 8, generator=generator, dtype=torch.float64)
    left.requires_grad_()
    scores = torch.randint(6, (32,), generator=generator) / 5  # graded as STS is, with ties
    loss = cosent(cosine_similarity(left, right), scores, 0.05)
    expected = CoSENTLoss(NO_MODEL, scale=1 / 0.05).compute_loss_from_embeddings([left, right], scores)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(loss, left), torch.autograd.grad(expected, left)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_cosent_counts_only_the_order_of_scores(similarities: Tensor) -> None:
    scores = torch.tensor([0.1, 0.9, 0.3, 0.3])
    assert torch.equal(cosent(similarities, scores, 0.05), cosent(similarities, scores.exp() * 100, 0.05))


def test_cosent_of_equal_scores_is_zero(similarities: Tensor) -> None:
    loss = cosent(similarities, torch.full((4,), 0.5), 0.05)
    assert loss == 0
    assert (torch.autograd.grad(loss, similarities)[0] == 0).all()


def test_cosent_temperature_learns(similarities: Tensor) -> None:
    temperature = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    loss = cosent(similarities, torch.tensor([0.1, 0.9, 0.3, 0.3]), temperature)
    assert torch.autograd.grad(loss, temperature)[0] != 0


def test_cosent_survives_small_temperatures(similarities: Tensor) -> None:
    loss = cosent(similarities.float(), torch.tensor([0.0, 1.0, 0.5, 0.2]), 1e-3)
    assert loss.item() == pytest.approx(800, abs=1e-3)  # the worst pair decides: (0.9 - 0.1) / 0.001


def test_cosent_refuses_shapes(similarities: Tensor) -> None:
    with pytest.raises(ValueError, match=r"got scores of shape \[4, 1\].*pass one score per pair"):
        cosent(similarities, torch.ones(4, 1), 0.05)
