"""What shorter and coarser embeddings keep: nDCG@10 over Matryoshka dimensions and precisions.

Shapes: Q queries, C documents, D embedding dimension, K prefix dimension, R candidates.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sentence_transformers.util import quantize_embeddings

from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.row_outcomes import Mean, Sample

# Candidates of a search among bits that a float query ranks again: 4 times the ten that are wanted, the oversampling
# of Shakir, Aarsen and Lee, "Binary and Scalar Embedding Quantization" (Hugging Face, 2024).
CANDIDATES = 40


def compression(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], dims: Sequence[int], int8_limits: Mapping[str, float]
) -> dict[tuple[str, str], dict[str, Sample]]:
    """nDCG@10 of every query by (precision, dimension) and source.

    `float32`, `int8` and `binary` store both sides alike. `binary_float_queries` searches binary documents with float
    queries; `binary_rescored` ranks only the best of a search among bits again that way, as `semantic_search_faiss` of
    Sentence Transformers does.

    Args:
        pairs: (queries [Q, D], documents [Q, D]) by source, unit vectors, document i relevant to query i.
        int8_limits: by dimension, the magnitude at the end of the int8 range, as shipped in calibration.json.
    """
    found: dict[tuple[str, str], dict[str, Sample]] = {}
    for dim in map(str, dims):
        for source, sides in pairs.items():
            for precision, ranked in _searches(*sides, int(dim), int8_limits[dim]).items():
                gains = ndcg_at_10(ranked, [{row} for row in range(len(ranked))])
                found.setdefault((precision, dim), {})[source] = Mean(gains)
    return found


def _searches(queries: np.ndarray, documents: np.ndarray, dim: int, int8_limit: float) -> dict[str, np.ndarray]:
    """The best ten documents or more [Q, R] of each query, by precision."""

    def sides(precision: str) -> tuple[np.ndarray, np.ndarray]:
        return stored(queries, dim, precision, int8_limit), stored(documents, dim, precision, int8_limit)

    floats, codes, bits = sides("float32"), sides("int8"), sides("binary")
    nearest = rank(*bits, CANDIDATES)[0]
    return {
        "float32": rank(*floats, 10)[0],
        "int8": rank(*codes, 10)[0],
        "binary": nearest,
        "binary_float_queries": rank(floats[0], bits[1], 10)[0],
        "binary_rescored": rescored(floats[0], bits[1], nearest),
    }


def rescored(queries: np.ndarray, documents: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Candidates [Q, R] by their dot products with each query [Q, K], best first; of equals the earlier stays first."""
    scores = [documents[few].astype(np.float32) @ query for query, few in zip(queries, candidates, strict=True)]
    return np.take_along_axis(candidates, np.argsort(-np.stack(scores), axis=1, kind="stable"), axis=1)


def stored(embeddings: np.ndarray, dim: int, precision: str, int8_limit: float) -> np.ndarray:
    """Cut to `dim`, renormalise, round as `quantize_embeddings` of Sentence Transformers does; binary as -1 and 1."""
    cut = embeddings[:, :dim] / np.linalg.norm(embeddings[:, :dim], axis=1, keepdims=True)
    if precision == "float32":
        return cut
    if precision == "int8":
        ranges = np.array([[-int8_limit] * dim, [int8_limit] * dim], dtype=np.float32)
        return np.asarray(quantize_embeddings(cut, precision="int8", ranges=ranges))
    bits = np.unpackbits(quantize_embeddings(cut, precision="ubinary"), axis=1)[:, :dim]
    return np.asarray(bits.astype(np.int8) * 2 - 1)
