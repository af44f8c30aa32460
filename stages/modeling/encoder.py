"""An encoder: backbone, tokenizer, pooling and side prompts; texts in, unit vectors out.

Shapes: B batch, L tokens, D embedding dimension.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from stages.corpus.batches import token_budget_batches
from stages.modeling.identity import local_folder

Pooling = Literal["last", "mean", "cls"]
SETTINGS = "encoder.json"


@dataclass(frozen=True)
class EncoderSettings:
    """What turns a backbone into an embedding model; released with the weights."""

    pooling: Pooling
    prompts: dict[str, str]  # side -> text put before it
    max_tokens: int
    rope_theta: float | None = None


class Encoder(nn.Module):
    """A backbone with its tokenizer; `forward` gives unit embeddings [B, D]."""

    def __init__(self, backbone: nn.Module, tokenizer: PreTrainedTokenizerFast, settings: EncoderSettings) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        if settings.pooling == "last":
            ensure_end_of_sequence(tokenizer)
        if settings.rope_theta is not None:
            set_rope_theta(backbone, settings.rope_theta)
        # A tuple, which torch does not take for a submodule.
        self._narrowed = tuple(_last_mlp_norms(backbone))

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the backbone's weights are."""
        return next(self.backbone.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids [B, L] and mask [B, L] -> unit embeddings [B, D]; padding may stand on either side."""
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        with self._reading(attention_mask):
            outputs = self.backbone(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions)
        return F.normalize(pool(outputs.last_hidden_state, attention_mask, self.settings.pooling), dim=-1)

    @contextmanager
    def _reading(self, attention_mask: Tensor) -> Iterator[None]:
        """Inside the block, the last layer's MLP works on the one position that pooling reads.

        It is two thirds of that layer. The narrowed result [B, 1, D] is added to every position of the residual, which
        is right at the position read; the others are never looked at. Exact, for pre-norm layers of the Llama family.
        """
        if self.settings.pooling == "mean" or not self._narrowed:
            yield
            return
        read = read_positions(attention_mask, self.settings.pooling)
        hooks = [
            norm.register_forward_pre_hook(lambda _module, inputs: (inputs[0][read].unsqueeze(1),))
            for norm in self._narrowed
        ]
        try:
            yield
        finally:  # the backbone alone, or under another encoder, is whole again
            for hook in hooks:
                hook.remove()

    def tokenize(self, texts: Sequence[str], side: str, max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of each text behind its side's prompt, cut at `max_tokens` (None: the encoder's), without padding.

        Raises:
            KeyError: the side has no prompt.
        """
        if side not in self.settings.prompts:
            raise KeyError(f"unknown side {side!r}; this encoder has {', '.join(sorted(self.settings.prompts))}")
        prompt = self.settings.prompts[side]
        encoded = self.tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            max_length=max_tokens or self.settings.max_tokens,
            padding=False,
        )
        return encoded["input_ids"]

    def pad(self, token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Right-padded batch: `input_ids` and `attention_mask` [B, L] on the encoder's device."""
        longest = max(len(ids) for ids in token_ids)
        input_ids = torch.full((len(token_ids), longest), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros((len(token_ids), longest), dtype=torch.long)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = torch.as_tensor(ids)
            attention_mask[row, : len(ids)] = 1
        return {"input_ids": input_ids.to(self.device), "attention_mask": attention_mask.to(self.device)}

    @torch.inference_mode()
    def encode_batches(
        self, token_ids: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (row numbers [B], embeddings [B, D] float32) in batches of `batch_tokens`, longest texts first."""
        self.eval()
        for rows in token_budget_batches([len(ids) for ids in token_ids], batch_tokens):
            yield rows, self(**self.pad([token_ids[row] for row in rows])).float().cpu().numpy()

    def encode(self, texts: Sequence[str], side: str, batch_tokens: int = 4096, progress: str = "") -> np.ndarray:
        """Embeddings [len(texts), D] float32 of unit length, in the order given; `progress` names a bar."""
        embeddings = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with tqdm(total=len(texts), desc=progress, unit="text", disable=not progress) as bar:
            for rows, vectors in self.encode_batches(self.tokenize(texts, side), batch_tokens):
                embeddings[rows] = vectors
                bar.update(len(rows))
        return embeddings

    def save(self, folder: Path) -> None:
        """Write backbone and tokenizer in the transformers format (safetensors), and the settings beside them."""
        self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS).write_text(json.dumps(asdict(self.settings), indent=2) + "\n", encoding="utf-8")


def _last_mlp_norms(backbone: nn.Module) -> Iterator[nn.Module]:
    """The norm before the last layer's MLP in a backbone of the Llama family, which names it so; nothing for others."""
    layers = getattr(backbone, "layers", None)
    if layers is not None and hasattr(layers[-1], "post_attention_layernorm"):
        yield layers[-1].post_attention_layernorm


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce hidden states [B, L, D] under mask [B, L] to [B, D]; padding may stand on either side."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return hidden[read_positions(mask, pooling)]


def read_positions(mask: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Index ([B], [B]) of the row and position that `last` or `cls` pooling reads under mask [B, L]."""
    first = mask.argmax(dim=1)
    position = first if pooling == "cls" else first + mask.sum(dim=1) - 1
    return torch.arange(mask.shape[0], device=mask.device), position


def end_of_sequence(tokenizer: PreTrainedTokenizerFast) -> int:
    """Id of the token that ends a text: the separator, else the end of sequence.

    Raises:
        ValueError: the tokenizer has neither.
    """
    end: int | None = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if end is None:
        raise ValueError("last-token pooling needs a tokenizer with an end-of-sequence or separator token; it has none")
    return end


def ensure_end_of_sequence(tokenizer: PreTrainedTokenizerFast) -> None:
    """Have the tokenizer end every text with its end-of-sequence (or separator) token, which last-token pooling reads.

    The change is in the tokenizer's own post-processor, so it is saved with it and holds in every runtime.

    Raises:
        ValueError: the tokenizer has neither token.
    """
    end_id = end_of_sequence(tokenizer)
    end = tokenizer.convert_ids_to_tokens(end_id)
    ids = tokenizer("")["input_ids"]  # nothing but what the tokenizer puts around a text: a start token, if anything
    if not ids or ids[-1] != end_id:
        starts = tokenizer.convert_ids_to_tokens(ids)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*starts, "$A", end],
            pair=[*starts, "$A", end, "$B", end],
            special_tokens=[(end, end_id), *zip(starts, ids, strict=True)],
        )


def set_rope_theta(backbone: Any, theta: float) -> None:
    """Declare a backbone's RoPE base, in its config and in its rotary frequencies.

    Raises:
        ValueError: the backbone has no rotary position embedding of one base, or it scales the frequencies.
    """
    rotary = getattr(backbone, "rotary_emb", None)
    parameters = getattr(backbone.config, "rope_parameters", None)
    plain = parameters is not None and "rope_theta" in parameters and parameters.get("rope_type") == "default"
    if rotary is None or parameters is None or not plain:
        raise ValueError(
            f"rope_theta is {theta} but backbone {backbone.config.model_type!r} has no single, unscaled RoPE base; "
            "set it to null"
        )
    parameters["rope_theta"] = theta
    inv_freq, _ = rotary.compute_default_rope_parameters(backbone.config, device=rotary.inv_freq.device)
    rotary.inv_freq.copy_(inv_freq)
    rotary.original_inv_freq.copy_(inv_freq)


def load_backbone(location: str, num_layers: int | None = None) -> PreTrainedModel:
    """Load a backbone from a folder, a `package:` location or a hub id, cut to its first `num_layers` layers.

    Raises:
        ValueError: weights are missing from the folder and would be left random, or it has fewer layers.
        FileNotFoundError: there is no such model within reach.
    """
    transformers_logging.disable_progress_bar()  # of the weights' names; the stages show bars of their own
    backbone, report = AutoModel.from_pretrained(
        local_folder(location),
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    random = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if random:
        raise ValueError(f"{location}: {len(random)} weights are not in the folder and would be random: {random[:3]}")
    if num_layers is not None:
        keep_first_layers(backbone, num_layers)
    return backbone


def keep_first_layers(backbone: PreTrainedModel, num_layers: int) -> None:
    """Cut a backbone to its first `num_layers` transformer layers, in place."""
    owner: Any = backbone if hasattr(backbone, "layers") else backbone.encoder
    name = "layers" if hasattr(owner, "layers") else "layer"
    layers = getattr(owner, name)
    if num_layers > len(layers):
        raise ValueError(f"num_layers is {num_layers} but the backbone has {len(layers)}; lower it")
    setattr(owner, name, layers[:num_layers])
    backbone.config.num_hidden_layers = num_layers
    if getattr(backbone.config, "layer_types", None):
        backbone.config.layer_types = backbone.config.layer_types[:num_layers]


def load_tokenizer(location: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer; one without a padding token pads with its end-of-sequence token.

    Raises:
        ValueError: the tokenizer has neither token.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(local_folder(location), trust_remote_code=False, use_fast=True)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{location}: the tokenizer has neither a padding nor an end-of-sequence token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_encoder(location: str, settings: EncoderSettings, num_layers: int | None = None) -> Encoder:
    """Load a backbone folder with its tokenizer as an encoder."""
    return Encoder(load_backbone(location, num_layers), load_tokenizer(location), settings)


def saved_encoder(folder: Path, rope_theta: float | None) -> Encoder:
    """Load an encoder that `Encoder.save` wrote, with the RoPE base of the phase that uses it (None: as saved)."""
    settings = EncoderSettings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    if rope_theta is not None:
        settings = replace(settings, rope_theta=rope_theta)
    return load_encoder(str(folder), settings)
