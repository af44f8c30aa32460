"""Queries of the test split worth reading: the worst ones, and those that moved most against another model.

Shapes: Q queries, C documents, D embedding dimension.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.evaluation.compared_models import ComparedModels
from stages.evaluation.measured_pairs import measured_pairs
from stages.evaluation.tasks import retrieval_vectors
from stages.metrics.retrieval import CHUNK_SIZE

# Rows of a table, and characters of a text: one or two minutes of reading for each source.
NUM_WORST, NUM_MOVED = 5, 3
LENGTH = 160
# A text is cut at the last space among these many characters; not every script has one.
WORD = 20
# Source -> side -> vectors, document i being the one relevant to query i.
Vectors = Mapping[str, Mapping[str, np.ndarray]]


class QueryRanks(NamedTuple):
    """For each query: the rank of its document, from 1 [Q], and the index of the document that ranks first [Q]."""

    ranks: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def gains(self) -> NDArray[np.float64]:
        """nDCG@10 [Q] with one relevant document."""
        return np.where(self.ranks <= 10, 1 / np.log2(1 + self.ranks), 0.0)


def queries_to_read(models: ComparedModels, curated: Path, sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give by source `worst_queries` of the retrieval adapter, and as `base` what moved most against the base."""
    ours, base = (retrieval_vectors(models, curated, sources, name) for name in ("retrieval", "base"))
    worst, moved = worst_queries(curated, ours), moved_queries(curated, ours, base)
    return {source: worst[source] | {"base": moved[source]} for source in ours}


def worst_queries(curated: Path, ours: Vectors) -> dict[str, dict[str, Any]]:
    """Give by source the number of `queries`, of those `missed` (nDCG@10 of 0), and the `worst`, worst first."""
    found = {}
    for source, by_side in ours.items():
        pairs, ranked = _pairs(curated, source), query_ranks(**by_side)
        order = np.argsort(-ranked.ranks, kind="stable")[:NUM_WORST]
        rows = [_row(pairs, row, ranked, ranked) for row in order if ranked.ranks[row] > 1]
        found[source] = {"queries": len(ranked.ranks), "missed": int((ranked.ranks > 10).sum()), "worst": rows}
    return found


def moved_queries(curated: Path, ours: Vectors, other: Vectors) -> dict[str, dict[str, Any]]:
    """Give by source the queries whose nDCG@10 `improved` and `fell` most against another model, most first.

    `instead` of an improved query is the document that the other model ranked first, of a fallen one ours.
    """
    found = {}
    for source in ours:
        pairs = _pairs(curated, source)
        ranked, before = (query_ranks(**model[source]) for model in (ours, other))
        gained = ranked.gains - before.gains
        # Rank 11 and rank 600 gain the same by coming first: the longer way is shown.
        order = np.lexsort((np.log(ranked.ranks / before.ranks), -gained))
        improved = [row for row in order[:NUM_MOVED] if gained[row] > 0]
        fell = [row for row in order[::-1][:NUM_MOVED] if gained[row] < 0]
        found[source] = {
            name: [_row(pairs, row, ranked, wrong) | {"before": int(before.ranks[row])} for row in rows]
            for name, rows, wrong in (("improved", improved, before), ("fell", fell, ranked))
        }
    return found


def query_ranks(query: NDArray[np.generic], document: NDArray[np.generic]) -> QueryRanks:
    """Rank each query's [Q, D] own document among all documents [C, D]; among equals the lower index stands first."""
    columns = document.astype(np.float32).T
    ranks, first = np.empty((2, len(query)), dtype=np.int64)
    chunk = max(1, CHUNK_SIZE // len(document))
    for start in range(0, len(query), chunk):
        rows = np.arange(start, min(start + chunk, len(query)))
        similarities = query[rows].astype(np.float32) @ columns
        own = similarities[np.arange(len(rows)), rows][:, None]
        equal_before = (similarities == own) & (np.arange(len(document)) < rows[:, None])
        ranks[rows] = 1 + ((similarities > own) | equal_before).sum(axis=1)
        first[rows] = similarities.argmax(axis=1)
    return QueryRanks(ranks, first)


def shortened(text: str) -> str:
    """Shorten a text to its start on one line, cut between words where the script has spaces."""
    line = " ".join(text.split())
    if len(line) <= LENGTH:
        return line
    cut = line[:LENGTH]
    space = cut.rfind(" ", LENGTH - WORD)
    return (cut if space < 0 else cut[:space]) + "\u2026"


def _row(pairs: Mapping[str, Sequence[str]], row: int, ours: QueryRanks, wrong: QueryRanks) -> dict[str, Any]:
    """A query in words; `wrong` is the ranking whose first document is shown instead of the right one."""
    return {
        "query": shortened(pairs["query"][row]),
        "document": shortened(pairs["document"][row]),
        "instead": shortened(pairs["document"][wrong.first[row]]),
        "rank": int(ours.ranks[row]),
    }


def _pairs(curated: Path, source: str) -> dict[str, list[str]]:
    """Test queries and documents of a source."""
    pairs: dict[str, list[str]] = measured_pairs(curated, source).to_pydict()
    return pairs
