"""Ranking losses over scored pairs.

Shapes: P pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosent(similarities: Tensor, scores: Tensor, temperature: Tensor | float) -> Tensor:
    """CoSENT, eq. (5): a pair with the higher score should have the higher similarity.

    The paper's formula has a typesetting error; this is CoSENT as published, and as Sentence Transformers has it. Pairs
    of equal score are not compared: a batch with a single score has loss 0 and no gradient.

    >>> similarities = F.cosine_similarity(left, right)
    >>> loss = cosent(similarities, torch.tensor([0.9, 0.1, 0.5]), temperature=0.05)

    Args:
        similarities: [P], the cosine of each pair.
        scores: [P], in any unit: only their order counts.
        temperature: tau' of the paper, divides the similarities; positive.

    Returns:
        ln(1 + sum over s_i > s_j of exp((similarity_j - similarity_i) / temperature)), a scalar.

    Raises:
        ValueError: the shapes disagree.
    """
    if similarities.shape != scores.shape:
        raise ValueError(
            f"got scores of shape {list(scores.shape)} for similarities of shape {list(similarities.shape)}, "
            "expected the same [P]: pass one score per pair"
        )
    logits = similarities / temperature
    differences = logits[None, :] - logits[:, None]  # [P, P]
    ordered = scores[:, None] > scores[None, :]  # [P, P]
    return torch.logsumexp(F.pad(differences[ordered], (1, 0)), dim=0)  # the padded 0 is the formula's 1
