"""Smaller embeddings: nDCG@10 over Matryoshka dimensions and precisions.

Shapes: Q queries, C documents, D embedding dimension, K prefix dimension, R candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sentence_transformers.util import quantize_embeddings

from stages.evaluation.comparison import overall
from stages.metrics import bootstrap
from stages.metrics.bootstrap import Draws
from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean, RowOutcomes

# Candidates of a binary search that a float query ranks again: 4 times the ten results, the oversampling of
# Shakir, Aarsen and Lee, "Binary and Scalar Embedding Quantization" (Hugging Face, 2024).
CANDIDATES = 40


def compression(
    vectors: Mapping[str, Mapping[str, np.ndarray]], dims: Sequence[int], int8_limits: Mapping[str, float]
) -> dict[str, dict[str, RowOutcomes]]:
    """nDCG@10 of every query by `precision/dimension` and source.

    `float32`, `int8` and `binary` store both sides alike. `binary_float_queries` searches binary documents with float
    queries; `binary_rescored` does so only among the best candidates of a binary search, as `semantic_search_faiss` of
    Sentence Transformers does.

    Args:
        vectors: unit vectors by source and side (`query` [Q, D], `document` [Q, D]), document i relevant to query i.
        int8_limits: by dimension, the magnitude at the end of the int8 range, as in the release's calibration.json.
    """
    found: dict[str, dict[str, RowOutcomes]] = {}
    for dim in map(str, dims):
        for source, sides in vectors.items():
            searches = _searches(sides["query"], sides["document"], int(dim), int8_limits[dim])
            for precision, ranked in searches.items():
                gains = ndcg_at_10(ranked, [{row} for row in range(len(ranked))])
                found.setdefault(f"{precision}/{dim}", {})[source] = Mean(gains)
    return found


def compression_figures(draws: Mapping[str, Mapping[str, Draws]], dims: Sequence[int]) -> dict[str, Any]:
    """`compression`: nDCG@10 by precision and dimension; `compression_kept`: its share of the full float vectors'.

    Args:
        draws: draws by `precision/dimension` and source.
    """
    means = {cell: overall(by_source) for cell, by_source in draws.items()}
    full = means[f"float32/{max(dims)}"]
    figures: dict[str, dict[str, float]] = {}
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for cell, mean in means.items():
        precision, _, dim = cell.partition("/")
        figures.setdefault(precision, {})[dim] = mean.figure
        shares.setdefault(precision, {})[dim] = bootstrap.ratio(mean, full).as_dict()
    return {"compression": figures, "compression_kept": shares}


def _searches(queries: np.ndarray, documents: np.ndarray, dim: int, int8_limit: float) -> dict[str, np.ndarray]:
    """The best ten documents or more [Q, R] of each query, by precision."""

    def both_sides(precision: str) -> tuple[np.ndarray, np.ndarray]:
        return stored(queries, dim, precision, int8_limit), stored(documents, dim, precision, int8_limit)

    floats, codes, bits = both_sides("float32"), both_sides("int8"), both_sides("binary")
    nearest = rank(*bits, CANDIDATES)[0]
    return {
        "float32": rank(*floats, 10)[0],
        "int8": rank(*codes, 10)[0],
        "binary": nearest,
        "binary_float_queries": rank(floats[0], bits[1], 10)[0],
        "binary_rescored": rescored(floats[0], bits[1], nearest),
    }


def rescored(queries: np.ndarray, documents: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Order candidates [Q, R] by their dot products with each query [Q, K], best first; equals keep their order."""
    scores = [documents[rows].astype(np.float32) @ query for query, rows in zip(queries, candidates, strict=True)]
    return np.take_along_axis(candidates, np.argsort(-np.stack(scores), axis=1, kind="stable"), axis=1)


def stored(embeddings: np.ndarray, dim: int, precision: str, int8_limit: float) -> np.ndarray:
    """Cut to `dim`, renormalise and round like `quantize_embeddings` of Sentence Transformers; bits become -1 and 1.

    >>> stored(np.array([[0.6, -0.8, 0.0]]), dim=2, precision="binary", int8_limit=1.0)
    array([[ 1, -1]], dtype=int8)
    """
    cut = embeddings[:, :dim] / np.linalg.norm(embeddings[:, :dim], axis=1, keepdims=True)
    if precision == "float32":
        return cut
    if precision == "int8":
        ranges = np.array([[-int8_limit] * dim, [int8_limit] * dim], dtype=np.float32)
        return np.asarray(quantize_embeddings(cut, precision="int8", ranges=ranges))
    bits = np.unpackbits(quantize_embeddings(cut, precision="ubinary"), axis=1)[:, :dim]
    return np.asarray(bits.astype(np.int8) * 2 - 1)
