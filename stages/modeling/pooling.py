"""Pooling: from the hidden states of a text to its embedding.

Shapes: B texts, L tokens of the longest, T tokens of all, D embedding dimension.
"""

import torch
from torch import Tensor

from stages.recipe.fields import Pooling


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce hidden states [B, L, D] under mask [B, L] to [B, D]; padding may stand on either side."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).float()
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return hidden[read_positions(mask, pooling)]


def read_positions(mask: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Return the index ([B], [B]) of row and position that `last` or `cls` pooling reads under mask [B, L]."""
    first = mask.argmax(dim=1)
    position = first if pooling == "cls" else first + mask.sum(dim=1) - 1
    return torch.arange(mask.shape[0], device=mask.device), position
