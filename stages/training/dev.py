"""Quick metrics on the dev split, for training curves; only evaluate looks at the test split, once.

Every metric is the mean over the sources with dev rows, each with its first `MAX_ROWS` rows; without them there is no
metric.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.corpus.tables import read_table
from stages.metrics.clustering import v_measure
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.similarity import spearman
from stages.modeling.encoder import Encoder

# Enough rows to see a curve, few enough to cost a second or two on a CPU.
MAX_ROWS = 200
# The columns of each kind of which one finds the other.
SEARCHED = {"pairs": ("query", "document"), "parallel": ("translation", "text")}


def retrieval_on_dev(encoder: Encoder, curated: Path, sources: Sequence[str]) -> dict[str, float]:
    """Compute nDCG@10 of dev queries among the dev documents of their source, or of translations among their texts."""
    figures = []
    for source, (kind, (query, document)) in itertools.product(sources, SEARCHED.items()):
        if not len(rows := _dev_rows(curated, kind, source)):
            continue
        queries = encoder.encode(rows[query].to_pylist(), "query")
        documents = encoder.encode(rows[document].to_pylist(), "document")
        ranked, _ = rank(queries, documents, 10)
        figures.append(ndcg_at_10(ranked, [{row} for row in range(len(rows))]).mean())
    return _mean("ndcg_at_10", figures)


def similarity_on_dev(encoder: Encoder, curated: Path, sources: Sequence[str]) -> dict[str, float]:
    """Compute Spearman's correlation with human scores on dev pairs."""
    figures = []
    for source in sources:
        if len((pairs := _dev_rows(curated, "scored", source))["score"].unique()) < 2:
            continue  # nothing to put in order
        left = encoder.encode(pairs["text_a"].to_pylist(), "document")
        right = encoder.encode(pairs["text_b"].to_pylist(), "document")
        figures.append(spearman(left, right, pairs["score"].to_numpy()))
    return _mean("spearman", figures)


def clustering_on_dev(encoder: Encoder, curated: Path, sources: Sequence[str], seed: int) -> dict[str, float]:
    """Compute the V-measure of k-means on labelled dev texts."""
    figures = []
    for source in sources:
        if len((rows := _dev_rows(curated, "labelled", source))["label"].unique()) < 2:
            continue  # any clusters would fit a single label
        embeddings = encoder.encode(rows["text"].to_pylist(), "document")
        figures.append(v_measure(embeddings, rows["label"].to_pylist(), seed))
    return _mean("v_measure", figures)


def _dev_rows(curated: Path, kind: str, source: str) -> pa.Table:
    return read_table(curated / kind / "dev.parquet", [source]).slice(0, MAX_ROWS)


def _mean(metric: str, figures: Sequence[float]) -> dict[str, float]:
    return {metric: float(np.mean(figures))} if figures else {}
