import math
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from stages.losses.contrastive import info_nce
from stages.losses.matryoshka import mean_over_dims, prefix, project_prefix


class Lookup(nn.Module):
    """A Sentence Transformers model whose features are its embeddings."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["embeddings"]}

    def get_embedding_dimension(self) -> int:
        return 8


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_prefix_by_hand() -> None:
    embeddings = torch.tensor([[3.0, 4, 12], [0, 2, 5]], dtype=torch.float64)
    expected = torch.tensor([[3 / math.sqrt(3**2 + 4**2), 4 / 5], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(prefix(embeddings, 2), expected)


def test_project_prefix_by_hand() -> None:
    embeddings = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0, 7], [2, 1, 7]], dtype=torch.float64)
    bias = torch.tensor([0.5, -1], dtype=torch.float64)
    expected = [[1 * 1 + 2 * 0 + 0.5, 1 * 2 + 2 * 1 - 1], [4 * 1 + 5 * 0 + 0.5, 4 * 2 + 5 * 1 - 1]]
    assert project_prefix(embeddings, weight, bias, 2).tolist() == expected


def test_project_prefix_of_all_is_the_projection() -> None:
    projection = nn.Linear(8, 5, dtype=torch.float64)
    embeddings = draw(4, 8)
    projected = project_prefix(embeddings, projection.weight, projection.bias, 8)
    assert torch.equal(projected, projection(embeddings))


def test_project_prefix_trains_its_columns_only() -> None:
    weight = draw(5, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(project_prefix(draw(4, 8), weight, draw(5), 3).sum(), weight)
    assert (gradient[:, :3] != 0).all()
    assert (gradient[:, 3:] == 0).all()


@pytest.mark.parametrize("dim", [0, 9])
def test_prefix_refuses_dims(dim: int) -> None:
    with pytest.raises(ValueError, match=f"got dim {dim}, expected 1 to 8"):
        prefix(draw(4, 8), dim)


def test_mean_over_dims_by_hand() -> None:
    assert mean_over_dims(lambda dim: torch.tensor(float(dim) ** 2), [1, 2, 4]) == (1 + 4 + 16) / 3


def test_mean_over_dims_equals_sentence_transformers() -> None:
    anchors, positives = tensors = draw(2, 4, 8).requires_grad_().unbind()
    dims = [2, 5, 8]
    model: Any = Lookup()
    no_labels: Any = None
    theirs = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20), dims)
    expected = theirs([{"embeddings": anchors}, {"embeddings": positives}], no_labels)
    cuts = {dim: (prefix(anchors, dim), prefix(positives, dim)) for dim in dims}
    loss = mean_over_dims(lambda dim: info_nce(*cuts[dim], None, 0.05), dims)
    # Theirs sums over the dims with weight 1: len(dims) times the mean.
    torch.testing.assert_close(len(dims) * loss, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(len(dims) * loss, tensors, retain_graph=True)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, tensors), rtol=0, atol=1e-10)
