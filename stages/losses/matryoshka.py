"""Matryoshka: prefixes of an embedding that work alone.

Shapes: B batch, D student dim, T teacher dim, K the prefix's dim (`dim`).
The paper trains prefixes without saying how they meet the projection; what is here is this project's reading.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def prefix(embeddings: Tensor, dim: int) -> Tensor:
    """The first `dim` coordinates as unit vectors, which is what a user who truncates gets: [B, D] -> [B, K].

    Raises:
        ValueError: if `dim` is not in 1..D.
    """
    return F.normalize(_first(embeddings, dim), dim=-1)


def project_prefix(embeddings: Tensor, weight: Tensor, bias: Tensor, dim: int) -> Tensor:
    """The projection of a prefix to the teacher's space: psi_k(z) = W[:, :k] z[:k] + b.

    Args:
        embeddings: [B, D], taken as they are.
        weight: [T, D], the W of psi.
        bias: [T], the b of psi, shared by all prefixes.
        dim: k, in 1..D; at D this is psi itself.

    Returns:
        [B, T].

    Raises:
        ValueError: if `dim` is not in 1..D.
    """
    return F.linear(_first(embeddings, dim), _first(weight, dim), bias)


def mean_over_dims(loss: Callable[[int], Tensor], dims: Sequence[int]) -> Tensor:
    """The mean of `loss(dim)`, a scalar each, over `dims`.

    `MatryoshkaLoss` of Sentence Transformers sums: len(dims) times as much.
    """
    return torch.stack([loss(dim) for dim in dims]).mean()


def _first(tensor: Tensor, dim: int) -> Tensor:
    """The first `dim` columns; a slice alone would silently return fewer."""
    if not 1 <= dim <= tensor.shape[-1]:
        raise ValueError(f"got dim {dim}, expected 1 to {tensor.shape[-1]}: correct matryoshka_dims")
    return tensor[..., :dim]
