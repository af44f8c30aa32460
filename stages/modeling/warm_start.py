"""Starts in closed form: a static embedder, a EuroBERT backbone that begins as that embedder, and the projection.

Shapes: N texts, V vocabulary, D student dimension, T teacher dimension.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertModel, EuroBertConfig, EuroBertModel, PreTrainedTokenizerFast

from stages.modeling.encoder import Encoder
from stages.modeling.tokenization import end_of_sequence
from stages.modeling.tokens import Tokens
from stages.recipe.distill import Backbone

# Scale of the first layer's queries: they start small, so that tokens are attended to by their weight alone.
QUERY_SCALE = 0.1
# Smooth inverse frequency: a token that makes up a share p of the text weighs a / (a + p) (Arora et al., 2017).
# Measured on dev nDCG@10 of the static embedder: 57.6 with equal weights; 59.0, 60.4, 61.3, 60.4 with a = 3e-3, 1e-3,
# 3e-4, 1e-4.
SMOOTHING = 3e-4
# The end-of-sequence token's own vector is the same for every text: it starts small so as not to drown the mean.
END_OF_SEQUENCE_SCALE = 0.01
# Texts whose means and vectors are in memory at once, in float32.
CHUNK_TEXTS = 65_536


def ridge(features: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Solve ridge regression W [D, T] of features [N, D] onto [N, T]; the penalty is relative to the mean variance.

    Example:
        >>> weights = ridge(embeddings, teacher, penalty=1e-3)
    """
    return _solve(features.T @ features, features.T @ targets, penalty)


def _solve(gram: np.ndarray, cross: np.ndarray, penalty: float) -> np.ndarray:
    damped = gram + np.diag(np.full(len(gram), penalty * np.trace(gram) / len(gram), dtype=gram.dtype))
    return np.linalg.solve(damped, cross)


def token_table(backbone: Any) -> np.ndarray:
    """Return a backbone's input embeddings [V, D] without position, of unit root mean square; a zero row stays zero."""
    with torch.inference_mode():
        table = backbone.get_input_embeddings().weight
        if isinstance(backbone, BertModel):
            table = backbone.embeddings.LayerNorm(table + backbone.embeddings.token_type_embeddings.weight[0])
        mean_square = table.pow(2).mean(dim=1, keepdim=True).clamp(min=torch.finfo(table.dtype).tiny)
        return (table * torch.rsqrt(mean_square)).numpy()


def token_weights(tokens: Tokens, vocabulary: int) -> np.ndarray:
    """Return the smooth inverse frequency of each token in the texts: [V], in (0, 1]."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    for start in range(0, len(tokens), CHUNK_TEXTS):  # bincount copies its input to int64
        counts += np.bincount(tokens[start : start + CHUNK_TEXTS].ids, minlength=vocabulary)
    return SMOOTHING / (SMOOTHING + counts / counts.sum())


def weighted_mean(table: np.ndarray, weights: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Return the weighted mean of each text's rows of the table [V, D]: [N, D]."""
    return np.stack([np.average(table[ids], axis=0, weights=weights[ids]) for ids in tokens])


def static_map(
    table: np.ndarray, weights: np.ndarray, tokens: Tokens, teacher: np.ndarray, penalty: float
) -> np.ndarray:
    """Solve ridge regression from weighted means of the table [V, D] onto the teacher's D principal axes: [D, D].

    Its sums are made chunk by chunk, so that any number of texts fits into memory.

    Args:
        teacher: vectors [N, T] of the texts, float16 as stored.
    """
    gram: Any = np.zeros((), dtype=np.float32)
    cross, second = gram, gram
    for start in range(0, len(tokens), CHUNK_TEXTS):
        means = weighted_mean(table, weights, tokens[start : start + CHUNK_TEXTS])
        targets = teacher[start : start + CHUNK_TEXTS].astype(np.float32)
        gram, cross, second = gram + means.T @ means, cross + means.T @ targets, second + targets.T @ targets
    return _solve(gram, cross, penalty) @ principal_axes(second)[:, : table.shape[1]]


class StaticEmbedder:
    """The baseline without layers: a weighted mean of token vectors [V, D], fitted in closed form.

    Args:
        table: token vectors [V, D], already mapped to the teacher's principal axes.
        weights: token weights [V].
        encoder: gives tokenizer, prompts and cut.
    """

    def __init__(self, table: np.ndarray, weights: np.ndarray, encoder: Encoder) -> None:
        self.table, self.weights, self.encoder = table.astype(np.float32), weights, encoder

    def encode(self, texts: Sequence[str], side: str) -> np.ndarray:
        """Embed texts as unit vectors [N, D]."""
        means = weighted_mean(self.table, self.weights, self.encoder.tokenize(texts, side))
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def principal_axes(second: np.ndarray) -> np.ndarray:
    """Return the rotation [T, T] into the principal axes of second moments [T, T], largest first."""
    eigenvalues, axes = np.linalg.eigh(second)
    return axes[:, np.argsort(-eigenvalues)]


def eurobert_config(
    backbone: Backbone, rope_theta: float, vocab_size: int, hidden_size: int, **token_ids: Any
) -> EuroBertConfig:
    """Return the config of a EuroBERT of the recipe's shape; `token_ids` are `pad_token_id` and the like."""
    shape: Any = backbone  # the recipe's checks leave no null in the shape of a eurobert
    return EuroBertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_attention_heads,
        max_position_embeddings=shape.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        **token_ids,
    )


def eurobert(
    shape: Backbone,
    rope_theta: float,
    table: np.ndarray,
    weights: np.ndarray,
    mixing: np.ndarray,
    tokenizer: PreTrainedTokenizerFast,
) -> EuroBertModel:
    """Build a EuroBERT backbone that starts near the static embedder `weighted_mean(table, weights, ids) @ mixing`.

    The first layer attends to each token by its weight [V], passes its row of the table [V, D] as the value, and its
    output map is `mixing` [D, D]. Further layers and every MLP start random and small, as the architecture has it.
    """
    end = end_of_sequence(tokenizer)
    config = eurobert_config(
        shape,
        rope_theta,
        *table.shape,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=end,
        # Nothing here masks tokens, but the config wants an id.
        mask_token_id=end if tokenizer.mask_token_id is None else tokenizer.mask_token_id,
    )
    backbone = EuroBertModel(config)
    attention: Any = backbone.layers[0].self_attn
    with torch.no_grad():
        backbone.embed_tokens.weight.copy_(torch.from_numpy(table))
        nn.init.eye_(attention.v_proj.weight)
        attention.o_proj.weight.copy_(torch.from_numpy(mixing.T.copy()))
        _attend_by_weight(backbone, weights, end)
        backbone.embed_tokens.weight[end] *= END_OF_SEQUENCE_SCALE
    return backbone


def _attend_by_weight(backbone: Any, weights: np.ndarray, end_of_sequence: int) -> None:
    """Let the last token of a text attend to token i in proportion to weights[i], in every head of the first layer.

    The log weight replaces the coordinate of the table that varies least. Keys copy it into the pair of coordinates
    that RoPE turns slowest, where the end-of-sequence token's query reads it: softmax(log w) = w / sum w.
    """
    table, attention = backbone.embed_tokens.weight, backbone.layers[0].self_attn
    log_weights = torch.from_numpy(np.log(weights)).float()
    scale = log_weights.abs().max()
    reserved = int(table.var(dim=0).argmin())
    table[:, reserved] = log_weights / scale
    attention.v_proj.weight[reserved, reserved] = 0.0
    attention.q_proj.weight.mul_(QUERY_SCALE)
    last = backbone.layers[0].input_layernorm(table[end_of_sequence])
    slowest = attention.head_dim // 2 - 1
    for head in range(backbone.config.num_attention_heads):
        row = head * attention.head_dim + slowest
        attention.k_proj.weight[row] = 0.0
        attention.k_proj.weight[row, reserved] = 1.0
        attention.q_proj.weight[row] = last / last.pow(2).sum() * scale / attention.scaling


def nearest_rotation(vectors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Solve orthogonal Procrustes: the orthonormal map [T, D], D <= T, of vectors [N, T] nearest to targets [N, D].

    It keeps distances or, if D < T, those within D directions.
    """
    left, _, right = np.linalg.svd(vectors.T @ targets, full_matrices=False)
    return np.asarray(left @ right)


def start_projection(projection: nn.Linear, embeddings: np.ndarray, teacher: np.ndarray, penalty: float) -> None:
    """Set a projection R^D -> R^T to the ridge solution from student embeddings [N, D] to teacher vectors [N, T]."""
    ones = np.ones((len(embeddings), 1), dtype=embeddings.dtype)
    solution = ridge(np.hstack([embeddings, ones]), teacher.astype(np.float32), penalty)
    with torch.no_grad():
        projection.weight.copy_(Tensor(solution[:-1].T.copy()))
        projection.bias.copy_(Tensor(solution[-1]))
