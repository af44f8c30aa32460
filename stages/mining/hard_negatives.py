"""Hard negatives: near candidates of each query, from one or several lists, that the teacher finds not too near.

Shapes: Q queries, T teacher dimension, W ranks of a list's window, K candidates of a query.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.metrics.retrieval import rank

# Pairs of vectors multiplied at once.
BLOCK_PAIRS = 2**16


@dataclass(frozen=True)
class Candidates:
    """Documents of each query's list, best first, and the teacher's similarity of each."""

    rows: np.ndarray  # [Q, K]; -1 where a list is shorter
    scores: np.ndarray  # [Q, K] float32


@dataclass(frozen=True)
class Mined:
    """Hard negatives of each query, and what became of the candidates."""

    negatives: list[list[int]]  # at most `num_negatives` document rows a query; never filled up
    scores: list[list[float]]
    suspects: list[tuple[int, float] | None]  # of each query: its best-scoring candidate that the margins removed
    num_candidates: int
    num_removed: int  # by the margins: too close to the positive, likely unlabelled positives


def nearest(queries: np.ndarray, documents: np.ndarray, rank_window: tuple[int, int]) -> Candidates:
    """The teacher's own list: ranks of `rank_window` (1 = nearest) without the query's own document.

    Args:
        queries, documents: unit vectors [Q, T]; document i is the positive of query i.
    """
    ranked, scores = rank(queries, documents, rank_window[1] + 1)
    return Candidates(*window(ranked, scores, rank_window))


def listed(queries: np.ndarray, documents: np.ndarray, ranked: np.ndarray, rank_window: tuple[int, int]) -> Candidates:
    """The same ranks of another's list, `ranked` [Q, K] (-1: no document), with the teacher's similarities."""
    rows, _ = window(ranked, np.zeros(ranked.shape, dtype=np.float32), rank_window)
    scores = np.zeros(rows.shape, dtype=np.float32)
    block = max(1, BLOCK_PAIRS // max(1, rows.shape[1]))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        scores[part] = np.einsum("qt,qkt->qk", queries[part], documents[rows[part]], dtype=np.float32)
    return Candidates(rows, scores)


def window(ranked: np.ndarray, scores: np.ndarray, rank_window: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks first to last of each list without the query's own document: (rows, scores) [Q, W], -1 past its end."""
    first, last = rank_window
    # A stable sort moves the query's own document behind all others.
    others = np.argsort(ranked == np.arange(len(ranked))[:, None], axis=1, kind="stable")
    rows, values = (np.take_along_axis(values, others, axis=1) for values in (ranked, scores))
    rows = np.where(rows == np.arange(len(rows))[:, None], -1, rows)
    return rows[:, first - 1 : last], values[:, first - 1 : last]


def merged(lists: Sequence[Candidates]) -> Candidates:
    """Lists in turns, rank by rank; a document that was there before is left out (-1)."""
    rows, scores = (
        np.stack([getattr(one, name) for one in lists], axis=-1).reshape(len(lists[0].rows), -1)
        for name in ("rows", "scores")
    )
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return Candidates(np.where(again, -1, rows), scores)


def mine(
    candidates: Candidates,
    positive: np.ndarray,
    *,
    num_negatives: int,
    relative_margin: float,
    absolute_margin: float | None,
) -> Mined:
    """Take the first candidates of each query that are not too near.

    A candidate scores at most (1 - relative_margin) of the score of the query's own document, as in NV-Retriever (arXiv
    2407.15831), and at most that score - absolute_margin; both by the teacher.

    Args:
        positive: scores [Q] of the queries' own documents.
    """
    limits = (1 - relative_margin) * positive
    if absolute_margin is not None:
        limits = np.minimum(limits, positive - absolute_margin)
    negatives: list[list[int]] = []
    kept_scores: list[list[float]] = []
    suspects: list[tuple[int, float] | None] = []
    num_candidates = num_removed = 0
    for of_query, similarities, limit in zip(candidates.rows, candidates.scores, limits, strict=True):
        known = of_query >= 0
        rows, values = of_query[known], similarities[known]
        allowed = values <= limit
        num_candidates += len(rows)
        num_removed += int((~allowed).sum())
        negatives.append(rows[allowed][:num_negatives].tolist())
        kept_scores.append(values[allowed][:num_negatives].tolist())
        suspects.append(_best(rows[~allowed], values[~allowed]))
    return Mined(negatives, kept_scores, suspects, num_candidates, num_removed)


def margin_curve(
    candidates: Candidates, positive: np.ndarray, num_negatives: int, margins: Sequence[float]
) -> list[dict[str, float]]:
    """What each relative margin alone would do: share of candidates removed, and of queries left with too few."""
    known = candidates.rows >= 0
    curve = []
    for margin in margins:
        kept = ((candidates.scores <= (1 - margin) * positive[:, None]) & known).sum(axis=1)
        removed = 1 - kept.sum() / max(1, known.sum())
        curve.append({"margin": margin, "removed": float(removed), "too_few": float((kept < num_negatives).mean())})
    return curve


def _best(candidates: np.ndarray, values: np.ndarray) -> tuple[int, float] | None:
    if len(candidates) == 0:
        return None
    place = int(values.argmax())
    return int(candidates[place]), float(values[place])
