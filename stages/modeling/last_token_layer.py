"""A backbone's last layer, computed only at the position that pooling reads; keys and values are of every token.

Query, output and MLP are four fifths of that layer, and they are computed for one position of a text instead of all.

Shapes: B texts, L tokens of the longest, T tokens of all, D dimension, H heads (fewer for keys and values where they
are grouped), A dimension of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stages.modeling.backbones import layers_of
from stages.recipe.fields import Pooling

# Backbones whose layers are a norm before attention, a norm before the MLP, RoPE, and nothing scaled on the way.
FAMILY = ("eurobert", "llama", "qwen2", "qwen3")


def can_skip_positions(layer: Any, pooling: Pooling) -> bool:
    """Return whether a layer can be computed at one position: it is of the family, and pooling is not `mean`."""
    attention = getattr(layer, "self_attn", None)
    if pooling == "mean" or attention is None or attention.config.model_type not in FAMILY:
        return False
    # Under a causal mask, the last token alone attends to all tokens; behind a window, not even that one.
    return (pooling == "last" or not attention.is_causal) and getattr(attention, "sliding_window", None) is None


def use_last_token_layer(backbone: nn.Module, pooling: Pooling) -> bool:
    """Let the last layer of a backbone take the argument `read`, and return whether it can."""
    layer: Any = layers_of(backbone)[-1]
    able = can_skip_positions(layer, pooling)
    if able and not isinstance(layer.forward, LastTokenLayer):
        layer.forward = LastTokenLayer(layer)
    return able


class LastTokenLayer:
    """The forward pass of a last layer; without `read` it is the layer's own.

    It keeps nothing of a batch, so that threads can share the backbone.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._whole = layer.forward

    def __call__(self, hidden_states: Tensor, *, read: tuple[Tensor, Tensor] | None = None, **others: Any) -> Tensor:
        """Map states [B, L, D], or packed [1, T, D], to those at the positions `read`, [B, 1, D].

        Args:
            read: index ([B], [B]) of row and position.
        """
        if read is None:
            whole: Tensor = self._whole(hidden_states, **others)
            return whole
        layer = self._layer
        states = layer.input_layernorm(hidden_states)
        residual = hidden_states[read].unsqueeze(1) + _attend(layer.self_attn, states, read, **others)
        output: Tensor = residual + layer.mlp(layer.post_attention_layernorm(residual))
        return output


def _attend(
    attention: Any,
    states: Tensor,
    read: tuple[Tensor, Tensor],
    *,
    attention_mask: Tensor | None,
    position_embeddings: tuple[Tensor, Tensor],
    packed: Any = None,
    **_others: Any,
) -> Tensor:
    """Compute the attention of the positions `read` to all tokens of their texts, [B, 1, D]."""
    query = _heads(attention, "q", states[read].unsqueeze(1))  # [B, 1, H, A]
    key = _heads(attention, "k", states)
    value = attention.v_proj(states).view(*states.shape[:-1], -1, attention.head_dim).transpose(1, 2)
    cosine, sine = position_embeddings  # [B, L, A]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, sdpa_attention_forward)
    if attention_mask is not None and packed is None:
        attention_mask = attention_mask.expand(-1, -1, states.shape[1], -1)[read[0], :, read[1]].unsqueeze(2)
    attended, _ = attend(
        attention,
        _rotate(query, cosine[read].unsqueeze(1), sine[read].unsqueeze(1)).transpose(1, 2),
        _rotate(key, cosine, sine).transpose(1, 2),
        value,
        attention_mask,
        scaling=attention.scaling,
        packed=packed,
    )
    output: Tensor = attention.o_proj(attended.reshape(read[0].shape[0], 1, -1))
    return output


def _heads(attention: Any, name: str, states: Tensor) -> Tensor:
    """Project states to queries or keys [B, L, H, A], normalised where the backbone does that."""
    heads: Tensor = getattr(attention, f"{name}_proj")(states).view(*states.shape[:-1], -1, attention.head_dim)
    norm = getattr(attention, f"{name}_norm", None)
    return heads if norm is None else norm(heads)


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply RoPE (arXiv 2104.09864) to heads [B, L, H, A] by angles [B, L, A], halves paired as transformers does."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine.unsqueeze(2) + torch.cat((-second, first), dim=-1) * sine.unsqueeze(2)
