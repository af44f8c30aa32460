"""Token counts of the texts of each training step, drawn as the stages draw their rows.

Shapes: N texts or pairs of a source.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from stages.corpus.batches import drawn_batches, mixed_batches, shuffled_batches, shuffled_token_batches

# Of a phase: the mean of so many steps is within a percent or so of all.
SAMPLED_STEPS = 200

Batches = list[np.ndarray]


def batches_of_texts(lengths: np.ndarray, batch_tokens: int | None, batch_size: int | None, seed: int) -> Batches:
    """Batches of single texts [N]: of a token budget, or of a size."""
    if batch_tokens is not None:
        batches = shuffled_token_batches(lengths.tolist(), batch_tokens, seed, 0)
    else:
        assert batch_size is not None, "one of the two"
        batches = shuffled_batches(lengths.tolist(), batch_size, seed, 0)
    return [lengths[rows] for rows in batches[:SAMPLED_STEPS]]


def batches_of_pairs(
    queries: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    sizes: Sequence[int],
    weights: Sequence[float],
    seed: int,
    num_negatives: int = 0,
) -> Batches:
    """Batches of pairs of one source a step, and as many other documents of it for each pair.

    Args:
        queries: tokens [N] of each source's; documents likewise.
    """
    starts = np.cumsum([0, *map(len, queries)])
    rows_of = [np.arange(start, end) for start, end in itertools.pairwise(starts.tolist())]
    query, document = np.concatenate(queries), np.concatenate(documents)
    generator = np.random.default_rng(seed)
    batches = []
    for rows in drawn_batches(rows_of, document.tolist(), sizes, weights, seed, 0)[:SAMPLED_STEPS]:
        source = int(np.searchsorted(starts, rows[0], side="right")) - 1
        negatives = generator.choice(rows_of[source], len(rows) * num_negatives)
        batches.append(np.concatenate([query[rows], document[rows], document[negatives]]))
    return batches


def batches_of_two_kinds(
    scored: Sequence[np.ndarray], pairs: Sequence[np.ndarray], size: int, share: float, seed: int
) -> Batches:
    """Batches of scored pairs, or of pairs without scores: tokens [N] of both sides; `share` of them are scored."""
    parts = [
        [np.concatenate([left[rows], right[rows]]) for rows in shuffled_batches(left.tolist(), size, seed, 0)]
        for left, right in (scored, pairs)
    ]
    return mixed_batches(parts, (share, 1 - share), seed, 0)[:SAMPLED_STEPS]


def batches_of_labelled(lengths: np.ndarray, size: int, num_negatives: int, seed: int) -> Batches:
    """Batches of anchors [N], each with a positive and negatives drawn at random."""
    generator = np.random.default_rng(seed)
    return [
        np.concatenate([lengths[rows], generator.choice(lengths, len(rows) * (1 + num_negatives))])
        for rows in shuffled_batches(lengths.tolist(), size, seed, 0)[:SAMPLED_STEPS]
    ]
