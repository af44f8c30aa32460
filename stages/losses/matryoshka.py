"""Matryoshka training: prefixes of an embedding that work as embeddings.

Shapes: B batch, D student dimension, T teacher dimension, K dimension of a prefix (`dim`).
The paper does not say how prefixes and projection go together; `project_prefix` is this project's answer.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def prefix(embeddings: Tensor, dim: int) -> Tensor:
    """Return the first `dim` coordinates as unit vectors, as a user truncates them: [B, D] -> [B, K].

    >>> prefix(torch.tensor([[3.0, 4.0, 12.0]]), dim=2)
    tensor([[0.6000, 0.8000]])

    Raises:
        ValueError: `dim` is not in 1..D.
    """
    return F.normalize(_first_columns(embeddings, dim), dim=-1)


def project_prefix(embeddings: Tensor, weight: Tensor, bias: Tensor, dim: int) -> Tensor:
    """Project a prefix to the teacher's space: psi_k(z) = W[:, :k] z[:k] + b.

    >>> psi = torch.nn.Linear(384, 1024)
    >>> projected = project_prefix(embeddings, psi.weight, psi.bias, dim=64)  # [B, 1024]

    Args:
        embeddings: [B, D], not normalised here.
        weight: [T, D], the W of psi.
        bias: [T], the b of psi, shared by all prefixes.
        dim: k, in 1..D; at D this is psi itself.

    Returns:
        [B, T].

    Raises:
        ValueError: `dim` is not in 1..D.
    """
    return F.linear(_first_columns(embeddings, dim), _first_columns(weight, dim), bias)


def mean_over_dims(loss: Callable[[int], Tensor], dims: Sequence[int]) -> Tensor:
    """Average the scalars `loss(dim)` over `dims`.

    `MatryoshkaLoss` of Sentence Transformers sums them, which gives len(dims) times as much.

    >>> loss = mean_over_dims(lambda dim: info_nce(prefix(queries, dim), prefix(documents, dim), None, 0.02), [64, 384])
    """
    return torch.stack([loss(dim) for dim in dims]).mean()


def _first_columns(tensor: Tensor, dim: int) -> Tensor:
    """Return the first `dim` columns; a slice alone would silently return fewer."""
    if not 1 <= dim <= tensor.shape[-1]:
        raise ValueError(f"got dim {dim}, expected 1 to {tensor.shape[-1]}: correct matryoshka_dims")
    return tensor[..., :dim]
