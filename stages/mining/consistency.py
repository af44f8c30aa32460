"""Consistency: the rank that the teacher gives a query's own document among the documents of its source and split.

Pairs beyond a declared rank are left out, the round trip of Promptagator (arXiv 2209.11755).

Shapes: Q pairs, U distinct documents, T teacher dimension.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stages.metrics.retrieval import CHUNK_SIZE

# Scores within this are equal: it covers the rounding of float32 sums.
TIE = 1e-6

INCONSISTENT = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("query", pa.string()),
        ("document", pa.string()),
        ("rank", pa.int64()),
        ("reason", pa.string()),
    ]
)

Pairs = Sequence[Mapping[str, Any]]


def own_ranks(pairs: Pairs, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Find the rank [Q] of each query's own document; 1 is the nearest to the query.

    A text counts once however often the source has it. Documents that score the same as the own one, and documents of
    other pairs with the same query, are never above it.

    Args:
        queries, documents: the teacher's unit vectors [Q, T].
    """
    columns_of: dict[str, int] = {}
    own = np.array([columns_of.setdefault(pair["document"], len(columns_of)) for pair in pairs], dtype=np.int64)
    _, first = np.unique(own, return_index=True)
    distinct = documents[first].T
    answers = defaultdict(set)
    for pair, column in zip(pairs, own.tolist(), strict=True):
        answers[pair["query"]].add(column)
    ranks = np.empty(len(pairs), dtype=np.int64)
    block = max(1, CHUNK_SIZE // max(1, len(first)))
    for start in range(0, len(pairs), block):
        part = slice(start, start + block)
        scores = queries[part] @ distinct  # [block, U]
        limits = np.take_along_axis(scores, own[part, None], axis=1) + TIE
        for row, pair in enumerate(pairs[part]):
            scores[row, list(answers[pair["query"]])] = -np.inf
        ranks[part] = 1 + (scores > limits).sum(axis=1)
    return ranks


def inconsistent_pairs(pairs: Pairs, ranks: np.ndarray, last_rank: int) -> list[dict[str, Any]]:
    """List the pairs beyond the last rank, with their rank and the reason, in the order of the pairs."""
    return [
        {name: pair[name] for name in ("id", "source", "query", "document")}
        | {"rank": rank, "reason": f"the teacher ranks the query's own document {rank}, expected at most {last_rank}"}
        for pair, rank in zip(pairs, ranks.tolist(), strict=True)
        if rank > last_rank
    ]


def audit_consistency(
    pairs: Pairs, ranks: np.ndarray, last_rank: int, left_out: Sequence[Mapping[str, Any]], num_examples: int
) -> dict[str, Any]:
    """Count the pairs left out, and list examples: those left out and those kept, the worst ranks first."""
    order = np.argsort(-ranks, kind="stable").tolist()
    kept = [row for row in order if ranks[row] <= last_rank][:num_examples]
    return {
        "last_rank": last_rank,
        "inconsistent": len(left_out),
        "left_out": sorted(map(dict, left_out), key=lambda pair: -pair["rank"])[:num_examples],
        "kept": [
            {name: pairs[row][name] for name in ("query", "document")} | {"rank": int(ranks[row])} for row in kept
        ],
    }
