"""How near a format's vectors are to torch's, and whether it reads texts the same way.

Shapes: N cases, M cases of a padded batch, D embedding dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# Similarities nearer than this are a tie: which of two equally near texts comes first says nothing.
TIE = 1e-5


@dataclass(frozen=True)
class Reading:
    """What a format makes of the cases, for one task."""

    token_ids: list[list[int]]
    alone: np.ndarray  # [N, D], each text in a batch of its own, so without padding
    padded: dict[str, np.ndarray] = field(default_factory=dict)  # side of the padding -> [M, D], one batch
    settings: Mapping[str, object] = field(default_factory=dict)  # pooling, prompts, max_tokens, padding_side


def figures(reference: np.ndarray, reading: Reading, batch: Sequence[int]) -> dict[str, float]:
    """Cosines, agreement of ranks, and what padding changes; 1 is the best of each.

    Args:
        reference: torch's vectors, [N, D].
        batch: which cases stand in the padded batches.
    """
    cosines = cosine(reference, reading.alone)
    padded = [cosine(reading.alone[list(batch)], vectors).min() for vectors in reading.padded.values()]
    return {
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "top1": top1_agreement(reference, reading.alone),
        "spearman": similarity_ranks(reference, reading.alone),
        "padding_cosine_min": float(np.min([1.0, *padded])),  # a NaN of one side stays, as `min` would not have it
    }


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row of [N, D] with the same row of another [N, D]: [N] float64; NaN stays NaN."""
    one, other = (side.astype(np.float64) for side in (left, right))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


def top1_agreement(reference: np.ndarray, found: np.ndarray) -> float:
    """Share of the texts [N, D] whose nearest other text is the reference's, or one that is as near for it."""
    expected = _similarities(reference)
    nearest = _similarities(found).argmax(axis=1)
    got = expected[np.arange(len(expected)), nearest]
    return float(np.mean(got >= expected.max(axis=1) - TIE))


def similarity_ranks(reference: np.ndarray, found: np.ndarray) -> float:
    """Spearman's correlation of all pairs' similarities, of texts [N, D] with those of the reference; ties as ties."""
    from scipy.stats import spearmanr

    above = np.triu_indices(len(reference), k=1)
    one, other = (np.round(_similarities(vectors)[above] / TIE) for vectors in (reference, found))
    return float(spearmanr(one, other).statistic)


def _similarities(vectors: np.ndarray) -> np.ndarray:
    """[N, N], nothing similar to itself."""
    similarities = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(similarities, -np.inf)
    return similarities


def faults(expected: Reading, reading: Reading, found: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """Why a format is not released: differences in reading, and figures under their limits; empty when it may be.

    Args:
        found: what `figures` gives.
        limits: least `cosine_min`, `cosine_mean`, `top1` and `spearman`; padding keeps to `cosine_min`.
    """
    wrong = [
        f"{name} is {reading.settings[name]!r}, expected {value!r}"
        for name, value in expected.settings.items()
        if reading.settings[name] != value
    ]
    pairs = zip(expected.token_ids, reading.token_ids, strict=True)
    if differing := [number for number, (one, other) in enumerate(pairs) if one != other]:
        first = differing[0]
        wrong.append(
            f"{len(differing)} of {len(expected.token_ids)} texts have other tokens; text {first} ends with "
            f"{reading.token_ids[first][-4:]} of {len(reading.token_ids[first])}, expected "
            f"{expected.token_ids[first][-4:]} of {len(expected.token_ids[first])}"
        )
    least = {**limits, "padding_cosine_min": limits["cosine_min"]}
    # A NaN passes no comparison.
    return wrong + [
        f"{name} is {found[name]:.6f}, at least {limit:g} is asked for"
        for name, limit in least.items()
        if not found[name] >= limit
    ]
