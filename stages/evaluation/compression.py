"""What shorter and coarser embeddings keep: nDCG@10 over Matryoshka dimensions and precisions.

Shapes: Q queries, C documents, D embedding dimension, K prefix dimension.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sentence_transformers.util import quantize_embeddings

from stages.metrics.retrieval import ndcg_at_10, rank
from stages.metrics.samples import Mean, Sample

PRECISIONS = ("float32", "int8", "binary")


def compression(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], dims: Sequence[int], int8_limits: Mapping[str, float]
) -> dict[tuple[str, str], dict[str, Sample]]:
    """nDCG@10 of every query by (precision, dimension) and source, both sides stored in the same precision.

    Args:
        pairs: (queries [Q, D], documents [Q, D]) by source, unit vectors, document i relevant to query i.
        int8_limits: by dimension, the magnitude at the end of the int8 range, as shipped in calibration.json.
    """
    return {
        (precision, str(dim)): {
            source: Mean(_ndcg(*(stored(side, dim, precision, int8_limits[str(dim)]) for side in sides)))
            for source, sides in pairs.items()
        }
        for precision in PRECISIONS
        for dim in dims
    }


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


def _ndcg(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    ranked, _ = rank(queries, documents, 10)
    return ndcg_at_10(ranked, [{row} for row in range(len(queries))])
