"""Queries of the test split worth reading: those answered worst, and those that moved most against another model.

Shapes: Q queries, C documents, D embedding dimension.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.corpus.tables import read_split
from stages.evaluation.tasks import Contenders, retrieval_vectors
from stages.metrics.retrieval import CHUNK_SIZE

# Rows of a table, and characters of a text: what is read in a minute or two a source.
NUM_WORST, NUM_MOVED = 5, 3
LENGTH = 160
# A cut goes back to the last space among these many characters; not every script has one.
WORD = 20
# Source to side to vectors, document i being the one relevant to query i.
Vectors = Mapping[str, Mapping[str, np.ndarray]]


class Places(NamedTuple):
    """For each query: the rank of its document from 1 [Q], and the index of the document ranked first [Q]."""

    ranks: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def gains(self) -> NDArray[np.float64]:
        """nDCG@10 [Q] with one relevant document."""
        return np.where(self.ranks <= 10, 1 / np.log2(1 + self.ranks), 0.0)


class Texts(NamedTuple):
    """The test rows of a source."""

    queries: Sequence[str]
    documents: Sequence[str]


def queries_to_read(contenders: Contenders, curated: Path, sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each source: the retrieval adapter's `worst_queries`, and what moved most against the `base`."""
    ours, base = (retrieval_vectors(contenders, curated, sources, name) for name in ("retrieval", "base"))
    worst, moved = worst_queries(curated, ours), moved_queries(curated, ours, base)
    return {source: worst[source] | {"base": moved[source]} for source in ours}


def worst_queries(curated: Path, ours: Vectors) -> dict[str, dict[str, Any]]:
    """By source: how many `queries`, how many are `missed` (nDCG@10 of 0), and the `worst` of them, worst first."""
    found = {}
    for source, by_side in ours.items():
        texts, placed = _texts(curated, source), places(**_sides(by_side))
        order = np.argsort(-placed.ranks, kind="stable")[:NUM_WORST]
        rows = [_row(texts, row, placed, placed) for row in order if placed.ranks[row] > 1]
        found[source] = {"queries": len(placed.ranks), "missed": int((placed.ranks > 10).sum()), "worst": rows}
    return found


def moved_queries(curated: Path, ours: Vectors, other: Vectors) -> dict[str, dict[str, Any]]:
    """By source: the queries whose nDCG@10 `improved` and `fell` most against another model's, the most first.

    A row of the first says what the other model ranked first instead of the right document, one of the second what
    ours does.
    """
    found = {}
    for source, by_side in ours.items():
        texts = _texts(curated, source)
        mine, its = places(**_sides(by_side)), places(**_sides(other[source]))
        gained = mine.gains - its.gains
        # Rank 11 and rank 600 gain the same by coming first: the longer way is the one to read.
        order = np.lexsort((np.log(mine.ranks / its.ranks), -gained))
        improved = [row for row in order[:NUM_MOVED] if gained[row] > 0]
        fell = [row for row in order[::-1][:NUM_MOVED] if gained[row] < 0]
        found[source] = {
            "improved": [_row(texts, row, mine, its, before=its) for row in improved],
            "fell": [_row(texts, row, mine, mine, before=its) for row in fell],
        }
    return found


def places(queries: NDArray[np.generic], documents: NDArray[np.generic]) -> Places:
    """Where each query [Q, D] finds its document among documents [C, D]; of equals the lower index stands first."""
    columns = documents.astype(np.float32).T
    ranks, first = np.empty((2, len(queries)), dtype=np.int64)
    chunk = max(1, CHUNK_SIZE // len(documents))
    for start in range(0, len(queries), chunk):
        rows = np.arange(start, min(start + chunk, len(queries)))
        similarities = queries[rows].astype(np.float32) @ columns
        own = similarities[np.arange(len(rows)), rows][:, None]
        before = (similarities == own) & (np.arange(len(documents)) < rows[:, None])
        ranks[rows] = 1 + ((similarities > own) | before).sum(axis=1)
        first[rows] = similarities.argmax(axis=1)
    return Places(ranks, first)


def shortened(text: str) -> str:
    """The start of a text on one line, cut between words where the script has spaces."""
    line = " ".join(text.split())
    if len(line) <= LENGTH:
        return line
    cut = line[:LENGTH]
    space = cut.rfind(" ", LENGTH - WORD)
    return (cut if space < 0 else cut[:space]) + "\u2026"


def _row(texts: Texts, row: int, ours: Places, wrong: Places, before: Places | None = None) -> dict[str, Any]:
    """One query in words; `wrong` is the ranking whose first document is shown instead of the right one."""
    shown = {
        "query": shortened(texts.queries[row]),
        "document": shortened(texts.documents[row]),
        "instead": shortened(texts.documents[wrong.first[row]]),
        "rank": int(ours.ranks[row]),
    }
    return shown if before is None else shown | {"before": int(before.ranks[row])}


def _texts(curated: Path, source: str) -> Texts:
    rows = read_split(curated, "pairs", "test", [source])
    return Texts(rows["query"].to_pylist(), rows["document"].to_pylist())


def _sides(by_side: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"queries": by_side["query"], "documents": by_side["document"]}
