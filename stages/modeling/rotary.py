"""A BERT with rotary positions instead of a table of them, so that a student cut from it reads texts of any length."""

from typing import Any

import torch
from transformers import BertConfig, BertModel, JinaEmbeddingsV3Config, JinaEmbeddingsV3Model, PreTrainedModel

# Positions whose mean vector stands for all positions; BERT saw short texts most.
MEAN_POSITIONS = 96


def with_rotary_positions(
    bert: PreTrainedModel, rope_theta: float, max_position_embeddings: int
) -> JinaEmbeddingsV3Model:
    """Copy a BERT into the architecture of jina-embeddings-v3 (arXiv 2409.10173): the same layers under RoPE.

    Queries and keys were not trained for rotation, so the model has to be trained further; 100 steps of distillation
    are enough for two layers of all-MiniLM-L6-v2.

    Raises:
        ValueError: the backbone is no BERT.
    """
    if not isinstance(bert, BertModel):
        raise ValueError(f"architecture rotary: got {bert.config.model_type!r}, expected a BERT; use pretrained")
    config = rotary_config(bert.config, rope_theta, max_position_embeddings)
    backbone = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
    _copy_embeddings(bert.embeddings, backbone.embeddings)
    for target, source in zip(backbone.layers, bert.encoder.layer, strict=True):
        _copy_layer(source, target)
    return backbone


def rotary_config(bert: BertConfig, rope_theta: float, max_position_embeddings: int) -> JinaEmbeddingsV3Config:
    """Return the config of a BERT's layers under rotary positions."""
    return JinaEmbeddingsV3Config(
        vocab_size=bert.vocab_size,
        hidden_size=bert.hidden_size,
        num_hidden_layers=bert.num_hidden_layers,
        num_attention_heads=bert.num_attention_heads,
        intermediate_size=bert.intermediate_size,
        hidden_act=bert.hidden_act,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=max_position_embeddings,
        layer_norm_eps=bert.layer_norm_eps,
        pad_token_id=bert.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
    )


@torch.no_grad()
def _copy_embeddings(source: Any, target: Any) -> None:
    """Copy token vectors and norm; the mean position is added to the vector that every token gets."""
    target.word_embeddings.load_state_dict(source.word_embeddings.state_dict())
    target.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
    position = source.position_embeddings.weight[:MEAN_POSITIONS].mean(dim=0)
    target.token_type_embeddings.weight.copy_(source.token_type_embeddings.weight[:1] + position)


def _copy_layer(source: Any, target: Any) -> None:
    attention = source.attention
    for source_part, target_part in (
        (attention.self.query, target.self_attn.q_proj),
        (attention.self.key, target.self_attn.k_proj),
        (attention.self.value, target.self_attn.v_proj),
        (attention.output.dense, target.self_attn.o_proj),
        (attention.output.LayerNorm, target.post_attention_layernorm),
        (source.intermediate.dense, target.mlp.fc1),
        (source.output.dense, target.mlp.fc2),
        (source.output.LayerNorm, target.post_mlp_layernorm),
    ):
        target_part.load_state_dict(source_part.state_dict())
