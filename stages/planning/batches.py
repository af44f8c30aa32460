"""Token counts of the texts of each training step, drawn as the stages draw their rows.

`name` says whose rows they are, for the message where there are too few.

Shapes: N texts or pairs of a source.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from stages.training.batches import Part, drawn_batches, mixed_batches, shuffled_batches, shuffled_token_batches

# Of a phase: the mean of so many steps is within a percent or so of all.
SAMPLED_STEPS = 200

Batches = list[np.ndarray]


def batches_of_texts(
    lengths: np.ndarray, batch_tokens: int | None, batch_size: int | None, seed: int, name: str
) -> Batches:
    """Batches of single texts [N]: of a token budget, or of a size."""
    if batch_tokens is not None:
        batches = shuffled_token_batches(lengths, batch_tokens, seed, 0)
    else:
        assert batch_size is not None, "one of the two"
        batches = shuffled_batches(lengths, batch_size, seed, 0, name)
    return [lengths[rows] for rows in batches[:SAMPLED_STEPS]]


def batches_of_pairs(
    queries: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    sizes: Sequence[int],
    weights: Sequence[float],
    names: Sequence[str],
    seed: int,
    num_negatives: int = 0,
) -> Batches:
    """Batches of pairs of one source a step, and as many other documents of it for each pair.

    Args:
        queries: tokens [N] of each source's; documents likewise.
    """
    starts = np.cumsum([0, *map(len, queries)])
    rows_of = [np.arange(start, end) for start, end in itertools.pairwise(starts.tolist())]
    parts = [Part(*one) for one in zip(names, rows_of, sizes, weights, strict=True)]
    query, document = np.concatenate(queries), np.concatenate(documents)
    generator = np.random.default_rng(seed)
    batches = []
    for rows in drawn_batches(parts, document, seed, 0)[:SAMPLED_STEPS]:
        source = int(np.searchsorted(starts, rows[0], side="right")) - 1
        negatives = generator.choice(rows_of[source], len(rows) * num_negatives)
        batches.append(np.concatenate([query[rows], document[rows], document[negatives]]))
    return batches


def batches_of_two_kinds(
    scored: Sequence[np.ndarray],
    pairs: Sequence[np.ndarray],
    size: int,
    share: float,
    seed: int,
    names: tuple[str, str],
) -> Batches:
    """Batches of scored pairs, or of pairs without scores: tokens [N] of both sides; `share` of them are scored."""
    parts = [
        [np.concatenate([left[rows], right[rows]]) for rows in shuffled_batches(left, size, seed, 0, name)]
        for (left, right), name in zip((scored, pairs), names, strict=True)
    ]
    return mixed_batches(parts, (share, 1 - share), seed, 0)[:SAMPLED_STEPS]


def batches_of_labelled(lengths: np.ndarray, size: int, num_negatives: int, seed: int, name: str) -> Batches:
    """Batches of anchors [N], each with a positive and negatives drawn at random."""
    generator = np.random.default_rng(seed)
    return [
        np.concatenate([lengths[rows], generator.choice(lengths, len(rows) * (1 + num_negatives))])
        for rows in shuffled_batches(lengths, size, seed, 0, name)[:SAMPLED_STEPS]
    ]
