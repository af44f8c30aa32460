"""Regularisers of a batch of embeddings.

Shapes: B batch, D student dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def spread_out(embeddings: Tensor) -> Tensor:
    """Global orthogonal regulariser, eq. (3), of a single side: embeddings of a batch should be near orthogonal.

    The caller adds the two sides. Zhang et al. 2017 (arXiv 1708.06320), who named it, subtract 1/D, clamp at 0 and add
    the squared mean cosine; the paper keeps the second moment alone.

    >>> spread_out(torch.eye(4))
    tensor(0.)

    Args:
        embeddings: [B, D], of any length: normalised here.

    Returns:
        The mean of the squared cosines off the diagonal, a scalar in [0, 1].

    Raises:
        ValueError: B is 1, which leaves nothing off the diagonal.
    """
    num_rows = len(embeddings)
    if num_rows < 2:
        raise ValueError(f"got a batch of {num_rows}, expected at least 2: raise the batch size")
    unit = F.normalize(embeddings, dim=-1)
    diagonal = torch.eye(num_rows, dtype=torch.bool, device=embeddings.device)
    cosines = (unit @ unit.T).masked_fill(diagonal, 0)
    return cosines.square().sum() / (num_rows * (num_rows - 1))
