"""Packed batches: texts end to end in one row, without padding, and an attention that keeps the texts apart.

A packed batch is `input_ids` [1, T] and the `attention_mask` [B, L] of the padded batch; positions restart with every
text. The attention is registered with transformers under a name, so that any backbone which takes its attention from
there can use it. It is a variable-length kernel on GPUs; elsewhere the texts are padded inside attention alone.

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

from stages.modeling.tokens import Tokens
from stages.recipe.fields import Pooling

NAME = "packed_texts"
FUSED_DTYPES = (torch.float16, torch.bfloat16)


class PackedTexts(NamedTuple):
    """Positions of the texts of a packed row; a backbone hands them down to its attention."""

    boundaries: Tensor  # [B + 1] int32: first token of each text, and T
    rows: Tensor  # [T] text of each token
    positions: Tensor  # [T] position of each token in its text
    mask: Tensor  # [B, L]

    def read(self, pooling: Pooling) -> tuple[Tensor, Tensor] | None:
        """Return the index ([B], [B]) of row and position that `last` or `cls` pooling reads; None for `mean`."""
        if pooling == "mean":
            return None
        read = self.boundaries[:-1].long() if pooling == "cls" else self.boundaries[1:].long() - 1
        return torch.zeros_like(read), read

    def pool(self, hidden: Tensor, pooling: Pooling) -> Tensor:
        """Reduce hidden states [1, T, dimension] to one vector of each text, [B, dimension]."""
        read = self.read(pooling)
        if read is not None:
            return hidden[read]
        sums = hidden.new_zeros(len(self.mask), hidden.shape[2], dtype=torch.float32)
        return sums.index_add(0, self.rows, hidden[0].float()) / self.mask.sum(dim=1, keepdim=True)


def padded_batch(tokens: Tokens, padding: int) -> dict[str, Tensor]:
    """Make the right-padded `input_ids` and `attention_mask` [B, L] of B texts, on the CPU."""
    mask = _mask(tokens)
    input_ids = np.full(mask.shape, padding, dtype=np.int64)
    input_ids[mask] = tokens.ids
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def packed_batch(tokens: Tokens) -> dict[str, Tensor]:
    """Make the `input_ids` [1, T] of B texts end to end, and their `attention_mask` [B, L], on the CPU."""
    return {
        "input_ids": torch.from_numpy(tokens.ids.astype(np.int64)[None]),
        "attention_mask": torch.from_numpy(_mask(tokens).astype(np.int64)),
    }


def _mask(tokens: Tokens) -> np.ndarray:
    lengths = tokens.lengths
    return np.arange(lengths.max()) < lengths[:, None]


def packed_texts(mask: Tensor, total: int) -> PackedTexts:
    """Find the texts of a right-padded mask [B, L] in a row of `total` tokens, without waiting for a GPU."""
    lengths = mask.sum(dim=1)
    boundaries = torch.nn.functional.pad(lengths.cumsum(dim=0), (1, 0))
    rows = torch.repeat_interleave(torch.arange(len(mask), device=mask.device), lengths, output_size=total)
    positions = torch.arange(total, device=mask.device) - boundaries[rows]
    return PackedTexts(boundaries.to(torch.int32), rows, positions, mask)


class PackedAttention(NamedTuple):
    """The attention of a packed batch.

    Args:
        sliding_window: tokens that a token attends to in each direction, itself included, as transformers counts them.
    """

    packed: PackedTexts
    scaling: float | None
    causal: bool
    sliding_window: int | None

    def fused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend by PyTorch's variable-length kernel, to which autocast does not apply; heads are [T, H, D]."""
        dtype, packed = _half(query), self.packed
        longest = longest_query = packed.mask.shape[1]
        reach = -1 if self.sliding_window is None else self.sliding_window - 1
        boundaries, window = packed.boundaries, (reach, 0 if self.causal else reach)
        if len(query) == len(packed.mask):  # one query a text, which attends to the whole text
            boundaries, longest_query = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device), 1
            window = (-1, -1)
        attended: Any = varlen_attn(
            query.to(dtype),
            key.to(dtype),
            value.to(dtype),
            boundaries,
            packed.boundaries,
            longest_query,
            longest,
            scale=self.scaling,
            window_size=window,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return attended

    def unpacked(self, module: nn.Module, heads: list[Tensor]) -> Tensor:
        """Attend by the usual kernel, on heads [T, H, D] whose texts are padded to [B, H, L, D]."""
        packed = self.packed
        slots = packed.rows * packed.mask.shape[1] + packed.positions

        def spread(states: Tensor) -> Tensor:
            if len(states) == len(packed.mask):  # one query a text
                return states.unsqueeze(2)
            padded = states.new_zeros(packed.mask.numel(), *states.shape[1:]).index_copy(0, slots, states)
            return padded.unflatten(0, packed.mask.shape).transpose(1, 2)

        query, key, value = map(spread, heads)
        is_one = query.shape[2] == 1
        mask = packed.mask[:, None, None, :].bool() if is_one else self._mask()
        attended, _ = sdpa_attention_forward(
            module, query, key, value, mask, scaling=self.scaling, is_causal=self.causal
        )
        return attended.flatten(0, 1) if is_one else attended.flatten(0, 1).index_select(0, slots)

    def _mask(self) -> Tensor | None:
        """Return which tokens each token of a padded batch attends to; None where the causal flag alone says it."""
        keys = self.packed.mask[:, None, None, :].bool()
        if self.sliding_window is None:
            return None if self.causal else keys
        positions = torch.arange(keys.shape[-1], device=keys.device)
        distance = positions[:, None] - positions[None, :]
        near = (distance.abs() < self.sliding_window) & (distance >= 0 if self.causal else True)
        # Padding attends to itself: a token that attends to nothing has no softmax, and its NaN would spread backwards.
        return keys & near | (distance == 0)


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute the attention [1, T, H, D] of each text to itself; transformers gives the heads as [1, H, T, D].

    Args:
        query: query of every token, or one query of each text that attends to all of it, [B, H, 1, D]; attention is
            then [1, B, H, D].
        options: transformers' own, and `packed`: without it the batch is padded and goes the usual way.
    """
    packed = options.pop("packed", None)
    if packed is None:
        options.pop("sliding_window", None)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    assert not options.get("dropout"), "encoders train without dropout"
    heads = [states.transpose(1, 2).flatten(0, 1) for states in (query, key, value)]
    causal = bool(getattr(module, "is_causal", False))
    attention = PackedAttention(packed, options.get("scaling"), causal, options.get("sliding_window"))
    attended = attention.fused(*heads) if runs_fused(query) else attention.unpacked(module, heads)
    return attended.unsqueeze(0), None


def runs_fused(query: Tensor) -> bool:
    """Return whether the variable-length kernel takes these heads: on a GPU, in half precision (also by autocast)."""
    return query.is_cuda and _half(query) in FUSED_DTYPES


def _half(query: Tensor) -> torch.dtype:
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def use_packed_attention(backbone: Any) -> None:
    """Let a backbone, bare or under an adapter, use `packed_attention`; padded batches are computed as before.

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
