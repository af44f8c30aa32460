"""Closed-form starts: a static embedder, a EuroBERT backbone that begins as that embedder, and the projection.

Shapes: N texts, V vocabulary, D student dimension, T teacher dimension.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertModel, EuroBertConfig, EuroBertModel, PreTrainedTokenizerFast

# Queries start small, so that the first layer attends almost uniformly and the model starts as a mean of tokens.
QUERY_SCALE = 0.1
# The end-of-sequence token's own vector is the same for every text: it starts small so as not to drown the mean.
END_OF_SEQUENCE_SCALE = 0.01


def ridge(features: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Least squares W [D, T] of features [N, D] onto targets [N, T] with an L2 penalty relative to the mean variance."""
    gram = features.T @ features
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, features.T @ targets)


def token_table(teacher: BertModel) -> np.ndarray:
    """The teacher's input embeddings without position, normalised to unit root mean square: [V, D]."""
    with torch.inference_mode():
        table = teacher.embeddings.word_embeddings.weight + teacher.embeddings.token_type_embeddings.weight[0]
        table = teacher.embeddings.LayerNorm(table)
        return (table * torch.rsqrt(table.pow(2).mean(dim=1, keepdim=True))).numpy()


def mean_of_tokens(table: np.ndarray, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Mean of each text's rows of the table: [N, D]."""
    return np.stack([table[np.asarray(ids)].mean(axis=0) for ids in token_ids])


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """Orthogonal rotation [T, T] into the axes of largest uncentred variance first, so that prefixes keep the most."""
    eigenvalues, axes = np.linalg.eigh(vectors.T @ vectors)
    return axes[:, np.argsort(-eigenvalues)]


def eurobert(
    table: np.ndarray,
    tokenizer: PreTrainedTokenizerFast,
    mixing: np.ndarray,
    *,
    num_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
    max_position_embeddings: int,
    rope_theta: float,
) -> EuroBertModel:
    """A EuroBERT backbone over a token table [V, D] that starts near the static embedder mean(table) @ mixing [D, D].

    The first layer attends almost uniformly, its value map is the identity and its output map is `mixing`.
    """
    backbone = EuroBertModel(
        EuroBertConfig(
            vocab_size=table.shape[0],
            hidden_size=table.shape[1],
            intermediate_size=intermediate_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_attention_heads,
            max_position_embeddings=max_position_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            mask_token_id=tokenizer.mask_token_id,
        )
    )
    attention = backbone.layers[0].self_attn
    with torch.no_grad():
        backbone.embed_tokens.weight.copy_(torch.from_numpy(table))
        backbone.embed_tokens.weight[tokenizer.sep_token_id] *= END_OF_SEQUENCE_SCALE
        attention.q_proj.weight.mul_(QUERY_SCALE)
        nn.init.eye_(attention.v_proj.weight)
        attention.o_proj.weight.copy_(torch.from_numpy(mixing.T.copy()))
    return backbone


def start_projection(projection: nn.Linear, embeddings: np.ndarray, teacher: np.ndarray, penalty: float) -> None:
    """Set a projection R^D -> R^T to the ridge solution from student embeddings [N, D] to teacher vectors [N, T]."""
    ones = np.ones((len(embeddings), 1), dtype=embeddings.dtype)
    solution = ridge(np.hstack([embeddings, ones]), teacher.astype(np.float32), penalty)
    with torch.no_grad():
        projection.weight.copy_(Tensor(solution[:-1].T.copy()))
        projection.bias.copy_(Tensor(solution[-1]))
