"""Texts end to end in one row, without padding: the batch, and an attention that keeps the texts apart.

A packed batch is `input_ids` [1, T] and the `attention_mask` [B, L] that a padded one would have; positions restart
with every text. The attention is registered with transformers under a name, so any backbone that takes its attention
from there can use it. On GPUs it is a variable-length kernel; elsewhere texts are padded inside attention alone.

Shapes: B texts, L tokens of the longest, T tokens of all, H heads (fewer for keys and values where they are grouped),
D dimension of a head.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stages.modeling.pooling import Pooling
from stages.modeling.tokens import Tokens

NAME = "packed_texts"
FUSED_DTYPES = (torch.float16, torch.bfloat16)


class PackedTexts(NamedTuple):
    """Where the texts of a packed row lie; a backbone hands it down to its attention."""

    boundaries: Tensor  # [B + 1] int32: first token of each text, and T
    rows: Tensor  # [T] text of each token
    positions: Tensor  # [T] place of each token in its text
    mask: Tensor  # [B, L]

    def read(self, pooling: Pooling) -> tuple[Tensor, Tensor] | None:
        """Index ([B], [B]) into the row of what `last` or `cls` pooling reads; None for `mean`, which reads all."""
        if pooling == "mean":
            return None
        read = self.boundaries[:-1].long() if pooling == "cls" else self.boundaries[1:].long() - 1
        return torch.zeros_like(read), read

    def pool(self, hidden: Tensor, pooling: Pooling) -> Tensor:
        """Reduce hidden states [1, T, dimension] to one vector a text, [B, dimension]."""
        read = self.read(pooling)
        if read is not None:
            return hidden[read]
        sums = hidden.new_zeros(len(self.mask), hidden.shape[2], dtype=torch.float32)
        return sums.index_add(0, self.rows, hidden[0].float()) / self.mask.sum(dim=1, keepdim=True)


def padded_batch(tokens: Tokens, padding: int) -> dict[str, Tensor]:
    """Right-padded `input_ids` and `attention_mask` [B, L] of B texts, on the CPU."""
    mask = _mask(tokens)
    input_ids = np.full(mask.shape, padding, dtype=np.int64)
    input_ids[mask] = tokens.ids
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def packed_batch(tokens: Tokens) -> dict[str, Tensor]:
    """`input_ids` [1, T] of B texts end to end, and their `attention_mask` [B, L], on the CPU."""
    return {
        "input_ids": torch.from_numpy(tokens.ids.astype(np.int64)[None]),
        "attention_mask": torch.from_numpy(_mask(tokens).astype(np.int64)),
    }


def _mask(tokens: Tokens) -> np.ndarray:
    lengths = tokens.lengths
    return np.arange(lengths.max()) < lengths[:, None]


def packed_texts(mask: Tensor, total: int) -> PackedTexts:
    """Where the texts of a right-padded mask [B, L] lie in a row of `total` tokens; waits for no GPU."""
    lengths = mask.sum(dim=1)
    boundaries = torch.nn.functional.pad(lengths.cumsum(dim=0), (1, 0))
    rows = torch.repeat_interleave(torch.arange(len(mask), device=mask.device), lengths, output_size=total)
    positions = torch.arange(total, device=mask.device) - boundaries[rows]
    return PackedTexts(boundaries.to(torch.int32), rows, positions, mask)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: PackedTexts | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention [1, T, H, D] of each text to itself; heads [1, H, T, D] as transformers gives them.

    Args:
        query: of every token, or of one a text that attends to all of it, [B, H, 1, D]; attention is then [1, B, H, D].
        packed: None for a padded batch, which goes the usual way.
        sliding_window: tokens up to this distance, itself included, as transformers counts them.
    """
    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    assert dropout == 0.0, "encoders train without dropout"
    causal = bool(getattr(module, "is_causal", False))
    heads = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]
    attend = _fused if runs_fused(query) else _unpacked
    return attend(module, heads, packed, scaling, causal, sliding_window).unsqueeze(0), None


def runs_fused(query: Tensor) -> bool:
    """Whether the variable-length kernel takes these heads: on a GPU, in half precision (by autocast, too)."""
    return query.is_cuda and _half(query) in FUSED_DTYPES


def _half(query: Tensor) -> torch.dtype:
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def _fused(
    _module: nn.Module,
    heads: list[Tensor],
    packed: PackedTexts,
    scaling: float | None,
    causal: bool,
    sliding_window: int | None,
) -> Tensor:
    """By PyTorch's variable-length kernel, which autocast does not know."""
    query, key, value = (states.to(_half(heads[0])) for states in heads)
    reach = -1 if sliding_window is None else sliding_window - 1
    window = (reach, 0 if causal else reach)
    longest = packed.mask.shape[1]
    boundaries, longest_query = packed.boundaries, longest
    if len(query) == len(packed.mask):  # one a text: it attends to the whole text
        boundaries, longest_query = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device), 1
        window = (-1, -1)
    attended: Any = varlen_attn(
        query,
        key,
        value,
        boundaries,
        packed.boundaries,
        longest_query,
        longest,
        scale=scaling,
        window_size=window,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended


def _unpacked(
    module: nn.Module,
    heads: list[Tensor],
    packed: PackedTexts,
    scaling: float | None,
    causal: bool,
    sliding_window: int | None,
) -> Tensor:
    """By the usual kernel on the texts padded to [B, H, L, D]."""
    slots = packed.rows * packed.mask.shape[1] + packed.positions

    def spread(states: Tensor) -> Tensor:
        if len(states) == len(packed.mask):  # one a text
            return states.unsqueeze(2)
        padded = states.new_zeros(packed.mask.numel(), *states.shape[1:]).index_copy(0, slots, states)
        return padded.unflatten(0, packed.mask.shape).transpose(1, 2)

    query, key, value = map(spread, heads)
    one = query.shape[2] == 1
    mask = packed.mask[:, None, None, :].bool() if one else _attention_mask(packed.mask, causal, sliding_window)
    attended, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=causal)
    return attended.flatten(0, 1) if one else attended.flatten(0, 1).index_select(0, slots)


def _attention_mask(mask: Tensor, causal: bool, sliding_window: int | None) -> Tensor | None:
    """Which tokens each token of a right-padded batch attends to, or None where the causal flag alone says it."""
    keys = mask[:, None, None, :].bool()
    if sliding_window is None:
        return None if causal else keys
    places = torch.arange(mask.shape[1], device=mask.device)
    distance = places[:, None] - places[None, :]
    near = (distance.abs() < sliding_window) & (distance >= 0 if causal else True)
    # Padding attends to itself: a token that may attend to nothing has no softmax, and its NaN would spread backwards.
    return keys & near | (distance == 0)


def use_packed_attention(backbone: Any) -> None:
    """Have a backbone, bare or under an adapter, take its attention from here; padded batches go through it as before.

    Raises:
        ValueError: the backbone has an attention of its own.
    """
    backbone.set_attn_implementation(NAME)
    if backbone.config._attn_implementation != NAME:
        raise ValueError(
            f"got engine.packing true, expected a backbone that takes its attention from transformers, "
            f"{backbone.config.model_type!r} has its own; set engine.packing to false"
        )


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
