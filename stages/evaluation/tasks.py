"""The tasks on held-out entities: per-row scores where rows can be paired, one figure where they cannot.

Shapes: Q queries, P pairs, n texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.corpus.tables import read_split
from stages.evaluation.contenders import Contenders
from stages.metrics.classification import accuracy
from stages.metrics.clustering import v_measure
from stages.metrics.lexical import bm25_rank
from stages.metrics.retrieval import ndcg_at_10, rank, recall_at_k
from stages.metrics.similarity import spearman

RANKS = 100


@dataclass(frozen=True)
class Score:
    """A contender's figures on a source, and its score on each row where a paired comparison is possible."""

    figures: dict[str, float]
    rows: np.ndarray | None = None


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
    return Score({"ndcg_at_10": float(gains.mean()), f"recall_at_{RANKS}": float(recall.mean())}, gains)


def text_matching(contenders: Contenders, name: str, curated: Path, source: str) -> Score:
    """Rank correlation with people's scores."""
    pairs = read_split(curated, "scored", "test", [source])
    left, right = (contenders.embed(name, pairs[side].to_pylist(), "document", source) for side in ("text_a", "text_b"))
    return Score({"spearman": spearman(left, right, pairs["score"].to_numpy())})


def clustering(contenders: Contenders, name: str, curated: Path, source: str, seeds: Sequence[int]) -> Score:
    """V-measure of k-means on the test texts, the mean over seeds of k-means."""
    rows = read_split(curated, "labelled", "test", [source])
    embeddings = contenders.embed(name, rows["text"].to_pylist(), "document", source)
    figures = [v_measure(embeddings, rows["label"].to_pylist(), seed) for seed in seeds]
    return Score({"v_measure": float(np.mean(figures))})


def classification(contenders: Contenders, name: str, curated: Path, source: str) -> Score:
    """Accuracy of a logistic regression fitted on dev, which no adapter trained on, and scored on test."""
    fitted, scored = (read_split(curated, "labelled", split, [source]) for split in ("dev", "test"))
    right = accuracy(
        contenders.embed(name, fitted["text"].to_pylist(), "document", source),
        fitted["label"].to_pylist(),
        contenders.embed(name, scored["text"].to_pylist(), "document", source),
        scored["label"].to_pylist(),
    )
    return Score({"accuracy": float(right.mean())}, right)
