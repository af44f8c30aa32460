"""The tasks on held-out entities: figures, and the outcome on each row, on which models can be compared in pairs.

Shapes: Q queries, N texts, D embedding dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stages.corpus.tables import read_split
from stages.metrics.classification import accuracy
from stages.metrics.clustering import clusters
from stages.metrics.lexical import bm25_rank
from stages.metrics.retrieval import ndcg_at_10, rank, recall_at_k
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, Sample, figure
from stages.metrics.similarity import cosines

RANKS = 100
# k-means depends on its start: the mean over these many starts is what counts.
CLUSTERING_SEEDS = 5


@dataclass(frozen=True)
class Score:
    """A contender's figures on a source, and its outcome on each row, of which the first figure is made."""

    figures: dict[str, float]
    sample: Sample


class Contenders(Protocol):
    """Whoever embeds texts under the names that are compared."""

    def embed(self, name: str, texts: Sequence[str], side: str, source: str) -> np.ndarray:
        """Unit vectors [N, D] of a source's texts as `query` or `document`."""


def retrieval(contenders: Contenders, name: str, curated: Path, source: str) -> Score:
    """Test queries among the test documents of their source."""
    pairs = read_split(curated, "pairs", "test", [source])
    queries = contenders.embed(name, pairs["query"].to_pylist(), "query", source)
    documents = contenders.embed(name, pairs["document"].to_pylist(), "document", source)
    return ranking_score(rank(queries, documents, RANKS)[0])


def lexical_retrieval(curated: Path, source: str, k1: float, b: float) -> Score:
    """The same by BM25, which reads whole documents."""
    pairs = read_split(curated, "pairs", "test", [source])
    return ranking_score(bm25_rank(pairs["query"].to_pylist(), pairs["document"].to_pylist(), RANKS, k1, b))


def ranking_score(ranked: np.ndarray) -> Score:
    """Scores of ranked documents [Q, K] where document i is the one relevant to query i."""
    relevant = [{row} for row in range(len(ranked))]
    gains = ndcg_at_10(ranked, relevant)
    recall = recall_at_k(ranked, relevant, RANKS)
    return Score({"ndcg_at_10": float(gains.mean()), f"recall_at_{RANKS}": float(recall.mean())}, Mean(gains))


def text_matching(contenders: Contenders, name: str, curated: Path, source: str) -> Score:
    """Rank correlation with people's scores."""
    pairs = read_split(curated, "scored", "test", [source])
    left, right = (contenders.embed(name, pairs[side].to_pylist(), "document", source) for side in ("text_a", "text_b"))
    sample = RankCorrelation(cosines(left, right), pairs["score"].to_numpy())
    return Score({"spearman": figure(sample)}, sample)


def clustering(contenders: Contenders, name: str, curated: Path, source: str, seeds: Sequence[int]) -> Score:
    """V-measure of k-means on the test texts, the mean over seeds of k-means."""
    rows = read_split(curated, "labelled", "test", [source])
    embeddings = contenders.embed(name, rows["text"].to_pylist(), "document", source)
    names, labels = np.unique(rows["label"].to_pylist(), return_inverse=True)
    sample = Partition(np.stack([clusters(embeddings, len(names), seed) for seed in seeds]), labels)
    return Score({"v_measure": figure(sample)}, sample)


def classification(contenders: Contenders, name: str, curated: Path, source: str) -> Score:
    """Accuracy of a logistic regression fitted on dev, which no adapter trained on, and scored on test."""
    fitted, scored = (read_split(curated, "labelled", split, [source]) for split in ("dev", "test"))
    right = accuracy(
        contenders.embed(name, fitted["text"].to_pylist(), "document", source),
        fitted["label"].to_pylist(),
        contenders.embed(name, scored["text"].to_pylist(), "document", source),
        scored["label"].to_pylist(),
    )
    return Score({"accuracy": float(right.mean())}, Mean(right))


def score(task: str, contenders: Contenders, name: str, curated: Path, source: str, seed: int) -> Score:
    """A contender's score on a source of a task, `unseen` being retrieval; `seed` is that of k-means."""
    if task == "clustering":
        return clustering(contenders, name, curated, source, range(seed, seed + CLUSTERING_SEEDS))
    of_task = {"text-matching": text_matching, "classification": classification}
    return of_task.get(task, retrieval)(contenders, name, curated, source)


def retrieval_vectors(
    contenders: Contenders, curated: Path, sources: Sequence[str], name: str = "retrieval"
) -> dict[str, dict[str, np.ndarray]]:
    """A contender's vectors of test queries and documents, the retrieval adapter's by itself, by source and side."""
    vectors = {}
    for source in sources:
        pairs = read_split(curated, "pairs", "test", [source])
        vectors[source] = {
            side: contenders.embed(name, pairs[side].to_pylist(), side, source) for side in ("query", "document")
        }
    return vectors
