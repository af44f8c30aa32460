"""The tasks on held-out entities: a model's figures, and its outcome on each row to compare it with other models.

Shapes: Q queries, K ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.corpus.tables import read_split, read_table
from stages.evaluation.compared_models import ComparedModels
from stages.evaluation.measured_pairs import measured_pairs
from stages.metrics.classification import accuracy
from stages.metrics.clustering import clusters
from stages.metrics.lexical import bm25_rank
from stages.metrics.retrieval import ndcg_at_10, rank, recall_at_k
from stages.metrics.row_outcomes import Mean, Partition, RankCorrelation, RowOutcomes, figure
from stages.metrics.similarity import cosines
from stages.recipe.evaluate import Bm25, EvaluateSources

RANKS = 100
# k-means depends on its start, so a clustering figure is the mean over this many seeds.
CLUSTERING_SEEDS = 5


@dataclass(frozen=True)
class Score:
    """A model's figures on a source, and its outcome on each row, from which the first figure is computed."""

    figures: dict[str, float]
    outcomes: RowOutcomes


def with_test_rows(sources: EvaluateSources, curated: Path) -> tuple[EvaluateSources, list[str]]:
    """Return the sources of each task that hold rows out, and the names of the others, on which nothing is measured."""
    held_out = {
        name
        for kind in ("pairs", "scored", "labelled")
        for name in read_table(curated / kind / "test.parquet")["source"].unique().to_pylist()
    }
    named = {task: getattr(sources, task) for task in type(sources).model_fields}
    left = {task: tuple(name for name in names if name in held_out) for task, names in named.items()}
    absent = dict.fromkeys(name for names in named.values() for name in names if name not in held_out)
    return sources.model_copy(update=left), list(absent)


def adapter_of(task: str) -> str:
    """Name the adapter that a task is about; `unseen` is retrieval on sources that nothing was trained on."""
    return "retrieval" if task == "unseen" else task


def score(task: str, models: ComparedModels, name: str, curated: Path, source: str, seed: int) -> Score:
    """Score a model on a source of a task; `seed` is the first one of k-means."""
    match task:
        case "text-matching":
            return text_matching(models, name, curated, source)
        case "clustering":
            return clustering(models, name, curated, source, range(seed, seed + CLUSTERING_SEEDS))
        case "classification":
            return classification(models, name, curated, source)
        case _:
            return retrieval(models, name, curated, source)


def retrieval(models: ComparedModels, name: str, curated: Path, source: str) -> Score:
    """Search test queries among the test documents of their source."""
    vectors = retrieval_vectors(models, curated, [source], name)[source]
    return ranking_score(rank(vectors["query"], vectors["document"], RANKS)[0])


def lexical_retrieval(curated: Path, source: str, bm25: Bm25) -> Score:
    """Search the same by BM25, which reads whole documents."""
    pairs = measured_pairs(curated, source)
    return ranking_score(bm25_rank(pairs["query"].to_pylist(), pairs["document"].to_pylist(), RANKS, bm25.k1, bm25.b))


def ranking_score(ranked: np.ndarray) -> Score:
    """Score ranked documents [Q, K] where document i is the one relevant to query i."""
    relevant = [{row} for row in range(len(ranked))]
    gains = ndcg_at_10(ranked, relevant)
    recall = recall_at_k(ranked, relevant, RANKS)
    return Score({"ndcg_at_10": float(gains.mean()), f"recall_at_{RANKS}": float(recall.mean())}, Mean(gains))


def text_matching(models: ComparedModels, name: str, curated: Path, source: str) -> Score:
    """Correlate the similarity of pairs with people's scores."""
    pairs = read_split(curated, "scored", "test", [source])
    left, right = (models.embed(name, pairs[side].to_pylist(), "document", source) for side in ("text_a", "text_b"))
    outcomes = RankCorrelation(cosines(left, right), pairs["score"].to_numpy())
    return Score({"spearman": figure(outcomes)}, outcomes)


def clustering(models: ComparedModels, name: str, curated: Path, source: str, seeds: Sequence[int]) -> Score:
    """Cluster the test texts by k-means, once for each seed."""
    rows = read_split(curated, "labelled", "test", [source])
    embeddings = models.embed(name, rows["text"].to_pylist(), "document", source)
    names, labels = np.unique(rows["label"].to_pylist(), return_inverse=True)
    outcomes = Partition(np.stack([clusters(embeddings, len(names), seed) for seed in seeds]), labels)
    return Score({"v_measure": figure(outcomes)}, outcomes)


def classification(models: ComparedModels, name: str, curated: Path, source: str) -> Score:
    """Classify test texts by a logistic regression fitted on dev, which no adapter trained on."""
    embeddings, labels = [], []
    for split in ("dev", "test"):
        rows = read_split(curated, "labelled", split, [source])
        embeddings.append(models.embed(name, rows["text"].to_pylist(), "document", source))
        labels.append(rows["label"].to_pylist())
    right = accuracy(embeddings[0], labels[0], embeddings[1], labels[1])
    return Score({"accuracy": float(right.mean())}, Mean(right))


def retrieval_vectors(
    models: ComparedModels, curated: Path, sources: Sequence[str], name: str = "retrieval"
) -> dict[str, dict[str, np.ndarray]]:
    """Embed test queries and documents with a model, by source and side; by default with the retrieval adapter."""
    vectors = {}
    for source in sources:
        pairs = measured_pairs(curated, source)
        vectors[source] = {
            side: models.embed(name, pairs[side].to_pylist(), side, source) for side in ("query", "document")
        }
    return vectors
