from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import GlobalOrthogonalRegularizationLoss
from torch import Tensor

from stages.losses.regularization import spread_out

NO_MODEL: Any = None  # not asked where embeddings are passed


@pytest.fixture
def embeddings() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 8, generator=generator, dtype=torch.float64, requires_grad=True)


def test_spread_out_by_hand() -> None:
    embeddings = torch.tensor([[2.0, 0, 0], [3, 4, 0], [0, 0, 1]], dtype=torch.float64)
    expected = (0.6**2 + 0**2 + 0**2) * 2 / (3 * 2)  # each pair twice, over B (B - 1)
    assert spread_out(embeddings).item() == pytest.approx(expected, abs=1e-12)


def test_spread_out_and_sentence_transformers(embeddings: Tensor) -> None:
    embeddings = (embeddings + 1).detach().requires_grad_()  # clusters, so that their clamp does not act
    theirs = GlobalOrthogonalRegularizationLoss(NO_MODEL, mean_weight=None)
    expected = theirs.compute_loss_from_embeddings([embeddings])["gor_second_moment"]
    # Theirs is max(0, second moment - 1/D); eq. (3) is the second moment itself. Same gradient above 1/D.
    loss = spread_out(embeddings)
    torch.testing.assert_close(loss - 1 / 8, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(loss, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_spread_out_has_a_gradient_where_theirs_is_clamped() -> None:
    embeddings = torch.eye(8, dtype=torch.float64)[:6].add(0.01).requires_grad_()
    theirs = GlobalOrthogonalRegularizationLoss(NO_MODEL, mean_weight=None)
    assert theirs.compute_loss_from_embeddings([embeddings])["gor_second_moment"] == 0
    assert (torch.autograd.grad(spread_out(embeddings), embeddings)[0] != 0).any()


def test_spread_out_ignores_lengths(embeddings: Tensor) -> None:
    lengths = torch.tensor([[1.0], [2], [3], [4], [5], [0.1]])
    torch.testing.assert_close(spread_out(embeddings * lengths), spread_out(embeddings))


def test_spread_out_bounds() -> None:
    assert spread_out(torch.eye(4)) == 0
    assert spread_out(torch.ones(4, 3)).item() == pytest.approx(1)


def test_spread_out_refuses_one_row(embeddings: Tensor) -> None:
    with pytest.raises(ValueError, match="got a batch of 1, expected at least 2"):
        spread_out(embeddings[:1])
