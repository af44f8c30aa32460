"""Comparison of a format with torch: how close its embeddings are, and whether it reads texts in the same way.

Shapes: N cases, M cases of a padded batch, D embedding dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

# Two similarities closer than this are a tie: rounding decides which of the two texts comes first.
TIE = 1e-5


@dataclass(frozen=True)
class FormatOutput:
    """Token ids, embeddings and settings that a format gives for the cases of one task."""

    token_ids: list[list[int]]
    embeddings: np.ndarray  # [N, D], each text in a batch of its own, so without padding
    padded: dict[str, np.ndarray] = field(default_factory=dict)  # side of the padding -> [M, D], one batch
    settings: Mapping[str, object] = field(default_factory=dict)  # pooling, prompts, max_tokens, padding_side


def agreement(reference: np.ndarray, output: FormatOutput, batch: Sequence[int]) -> dict[str, float]:
    """Measure how well a format agrees with torch; 1 is the best value of every figure.

    Args:
        reference: torch's embeddings, [N, D].
        batch: M rows of the embeddings; the padded batches hold these cases.
    """
    cosines = cosine(reference, output.embeddings)
    padded = [cosine(output.embeddings[list(batch)], vectors).min() for vectors in output.padded.values()]
    return {
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "top1": top1_agreement(reference, output.embeddings),
        "spearman": similarity_spearman(reference, output.embeddings),
        "padding_cosine_min": float(np.min([1.0, *padded])),  # np.min keeps a NaN, Python's min may drop it
    }


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row of `left` [N, D] with the same row of `right` [N, D]: [N] float64; NaN stays NaN."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / lengths)


def top1_agreement(reference: np.ndarray, embeddings: np.ndarray) -> float:
    """Share of texts whose nearest neighbour in `embeddings` [N, D] is also nearest, or tied, in the reference."""
    expected = _similarities(reference)
    nearest = _similarities(embeddings).argmax(axis=1)
    got = expected[np.arange(len(expected)), nearest]
    return float(np.mean(got >= expected.max(axis=1) - TIE))


def similarity_spearman(reference: np.ndarray, embeddings: np.ndarray) -> float:
    """Spearman correlation of the similarities of all pairs of texts in two sets of embeddings [N, D]."""
    pairs = np.triu_indices(len(reference), k=1)
    expected, got = (np.round(_similarities(vectors)[pairs] / TIE) for vectors in (reference, embeddings))
    return float(spearmanr(expected, got).statistic)


def _similarities(vectors: np.ndarray) -> np.ndarray:
    """Similarities [N, N] of all texts; minus infinity on the diagonal, so that no text is its own neighbour."""
    similarities = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(similarities, -np.inf)
    return similarities


def disagreements(
    expected: FormatOutput, output: FormatOutput, figures: Mapping[str, float], limits: Mapping[str, float]
) -> list[str]:
    """List the reasons not to release a format: other settings, other tokens, figures below their limits.

    Args:
        figures: result of `agreement`.
        limits: least `cosine_min`, `cosine_mean`, `top1` and `spearman`; padded batches must reach `cosine_min` too.
    """
    reasons = [
        f"{name} is {output.settings[name]!r}, expected {value!r}"
        for name, value in expected.settings.items()
        if output.settings[name] != value
    ]
    pairs = enumerate(zip(expected.token_ids, output.token_ids, strict=True))
    if differing := [row for row, (ours, theirs) in pairs if ours != theirs]:
        row, ours, theirs = differing[0], expected.token_ids[differing[0]], output.token_ids[differing[0]]
        reasons.append(
            f"{len(differing)} of {len(expected.token_ids)} texts have other tokens; text {row} ends with "
            f"{theirs[-4:]} of {len(theirs)}, expected {ours[-4:]} of {len(ours)}"
        )
    least = {**limits, "padding_cosine_min": limits["cosine_min"]}
    return reasons + [
        f"{name} is {figures[name]:.6f}, at least {limit:g} is asked for"
        for name, limit in least.items()
        if not figures[name] >= limit  # also true for NaN
    ]
