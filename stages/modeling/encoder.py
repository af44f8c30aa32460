"""An encoder: backbone, tokenizer, pooling and side prompts; texts in, unit vectors out.

Shapes: B batch, L tokens, D embedding dimension.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from stages.corpus.batches import token_budget_batches
from stages.modeling.identity import local_folder
from stages.modeling.packing import packed_batch, packed_texts, padded_batch, use_packed_attention
from stages.modeling.pooling import NarrowedMlp, Pooling, pool, read_positions

SETTINGS = "encoder.json"
# How far coordinates of a unit vector may be apart by rounding alone; texts that mix are apart by more.
PACKING_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


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
        self.precision = torch.float32
        self.packing = False
        self._narrowed = NarrowedMlp(backbone)

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the backbone's weights are."""
        return next(self.backbone.parameters()).device

    def arrange(self, precision: str, packing: bool) -> None:
        """Set how the encoder computes: the type of its forward pass, and whether `collate` packs texts.

        Args:
            precision: `float32`, or `bfloat16` for autocast; embeddings are float32 either way.

        Raises:
            ValueError: the backbone does not keep packed texts apart.
        """
        self.precision = getattr(torch, precision)
        self.packing = packing
        if packing:
            use_packed_attention(self.backbone)
            self._check_packing()

    @torch.no_grad()
    def _check_packing(self) -> None:
        """Try two short texts both ways: a backbone that drops what attention needs would mix them silently."""
        texts, difference, cause = [[0, 1, 2], [3, 4]], torch.inf, None
        try:
            difference = float((self(**self.batch(texts)) - self(**self.pad(texts))).abs().max())
        except (TypeError, RuntimeError) as error:
            cause = error
        if not difference < PACKING_TOLERANCE[self.precision]:
            self.packing = False
            raise ValueError(
                f"got engine.packing true, but backbone {self.backbone.config.model_type!r} does not keep packed texts "
                f"apart (vectors differ by {difference:.1g}, expected the same); set engine.packing to false"
            ) from cause

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit embeddings [B, D] float32 of a batch: padded, on either side, or packed (`packed_batch`).

        Args:
            input_ids: token ids, [B, L] or packed [1, T].
            attention_mask: [B, L].
        """
        device = input_ids.device.type
        with torch.autocast(device, dtype=self.precision, enabled=self.precision != torch.float32):
            embed = self._embed_padded if input_ids.shape == attention_mask.shape else self._embed_packed
            pooled = embed(input_ids, attention_mask)
        return F.normalize(pooled.float(), dim=-1)

    def _embed_padded(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        pooling = self.settings.pooling
        read = None if pooling == "mean" else read_positions(attention_mask, pooling)
        with self._narrowed.at(read):
            outputs = self.backbone(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions)
        return pool(outputs.last_hidden_state, attention_mask, pooling)

    def _embed_packed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert self.packing, "a packed batch goes to an encoder that packs"
        packed = packed_texts(attention_mask, input_ids.shape[1])
        with self._narrowed.at(packed.read(self.settings.pooling)):
            outputs = self.backbone(
                input_ids=input_ids,
                # Of four dimensions, so that transformers hands it to the attention as it is.
                attention_mask=attention_mask[None, None],
                position_ids=packed.positions[None],
                packed=packed,
            )
        return packed.pool(outputs.last_hidden_state, self.settings.pooling)

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

    def collate(self, token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """What `forward` takes of B texts, padded or packed, on the CPU; touches no weights: any thread may call it."""
        if self.packing:
            return packed_batch(token_ids)
        return padded_batch(token_ids, self.tokenizer.pad_token_id)

    def batch(self, token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`collate`, on the encoder's device."""
        return {name: tensor.to(self.device) for name, tensor in self.collate(token_ids).items()}

    def pad(self, token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Right-padded batch: `input_ids` and `attention_mask` [B, L] on the encoder's device."""
        padded = padded_batch(token_ids, self.tokenizer.pad_token_id)
        return {name: tensor.to(self.device) for name, tensor in padded.items()}

    @torch.inference_mode()
    def encode_batches(
        self, token_ids: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (row numbers [B], embeddings [B, D] float32) in batches of `batch_tokens`, longest texts first."""
        self.eval()
        for rows in token_budget_batches([len(ids) for ids in token_ids], batch_tokens):
            yield rows, self(**self.batch([token_ids[row] for row in rows])).cpu().numpy()

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
    folder = local_folder(location)
    backbone, report = AutoModel.from_pretrained(
        folder,
        config=without_dropout(AutoConfig.from_pretrained(folder, trust_remote_code=False)),
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


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """Switch every dropout of a config off, in place: a batch embedded twice must give the same vectors."""
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


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


def saved_encoder(folder: Path, rope_theta: float | None, max_tokens: int | None = None) -> Encoder:
    """Load an encoder that `Encoder.save` wrote, with RoPE base and cut of the phase that uses it (None: as saved)."""
    settings = EncoderSettings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    if rope_theta is not None:
        settings = replace(settings, rope_theta=rope_theta)
    if max_tokens is not None:
        settings = replace(settings, max_tokens=max_tokens)
    return load_encoder(str(folder), settings)


def place(encoder: Encoder, *, precision: str, packing: bool) -> Encoder:
    """Move an encoder to this process's device (its GPU where there is one) and arrange it by the recipe's words."""
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    encoder.to(device)
    encoder.arrange(precision, packing)
    return encoder
