"""The encoder: a backbone with tokenizer, pooling and prompts, which maps texts to unit vectors.

Shapes: B batch, L tokens, D embedding dimension.
"""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from stages.modeling.backbones import first_position, load_backbone, set_rope_theta, take_length
from stages.modeling.flops import TextFlops, count_flops, untrained_backbone
from stages.modeling.last_token_layer import use_last_token_layer
from stages.modeling.packing import packed_batch, packed_texts, padded_batch, use_packed_attention
from stages.modeling.pooling import pool, read_positions
from stages.modeling.threaded_inference import map_in_threads
from stages.modeling.token_batches import token_budget_batches
from stages.modeling.tokenization import ensure_end_of_sequence, load_tokenizer
from stages.modeling.tokens import Tokens
from stages.recipe.fields import Pooling

SETTINGS = "encoder.json"
# Texts that are tokenised at once; the tokenizer's lists of ints are dropped before the next texts.
CHUNK_TEXTS = 4096
# Largest difference of a unit vector's coordinates by rounding alone; it is larger where texts mix.
BATCH_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class EncoderSettings:
    """Settings that turn a backbone into an embedding model; they are released with its weights."""

    pooling: Pooling
    prompts: dict[str, str]  # side -> text put before it
    max_tokens: int
    rope_theta: float | None = None


class Encoder(nn.Module):
    """A backbone with its tokenizer; `forward` gives unit embeddings [B, D].

    Example:
        >>> encoder = load_encoder("folder", EncoderSettings("mean", {"query": "", "document": ""}, max_tokens=512))
        >>> vectors = encoder.encode(["a text"], "document")  # [1, D] float32
    """

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
        self._reads_one_position = use_last_token_layer(backbone, settings.pooling)
        self._first_position = first_position(backbone)
        self._training_flops: dict[str | None, TextFlops] = {}  # by adapter

    @property
    def dimensions(self) -> int:
        """Number of dimensions of an embedding, D."""
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the backbone's weights."""
        return next(self.backbone.parameters()).device

    def arrange(self, precision: str, packing: bool) -> None:
        """Set the number format of the forward pass, and whether `collate` packs texts.

        Args:
            precision: `float32`, or `bfloat16` for autocast; embeddings are float32 either way.

        Raises:
            ValueError: the backbone does not keep the texts of a batch apart.
        """
        self.precision = getattr(torch, precision)
        self.packing = packing
        if packing:
            use_packed_attention(self.backbone)
        self._check_batches()

    @torch.no_grad()
    def _check_batches(self) -> None:
        """Embed two short texts together and alone: a backbone that does not pass on the mask mixes them."""
        texts, difference, cause = Tokens.of([[0, 1, 2], [3, 4]]), torch.inf, None
        try:
            alone = torch.cat([self(**self.pad(texts.select([row]))) for row in range(len(texts))])
            difference = float((self(**self.batch(texts)) - alone).abs().max())
        except (TypeError, RuntimeError, ValueError) as error:
            cause = error
        if not difference < BATCH_TOLERANCE[self.precision]:
            packing, self.packing = self.packing, False
            reason = str(cause) if cause else f"vectors differ by {difference:.1g}, expected the same"
            raise ValueError(
                f"got engine.packing {str(packing).lower()}, but backbone {self.backbone.config.model_type!r} does not "
                f"keep {'packed' if packing else 'padded'} texts apart ({reason}); "
                + ("set engine.packing to false" if packing else "take another backbone")
            ) from cause

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed a batch that is padded, on either side, or packed; returns unit embeddings [B, D] float32.

        Args:
            input_ids: token ids, [B, L] or packed [1, T].
            attention_mask: [B, L].
        """
        device = input_ids.device.type
        with torch.autocast(device, dtype=self.precision, enabled=self.precision != torch.float32):
            embed = self._embed_padded if input_ids.shape == attention_mask.shape else self._embed_packed
            pooled = embed(input_ids, attention_mask)
        return F.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=-1)

    def _embed_padded(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0) + self._first_position
        pooling = self.settings.pooling
        arguments = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": positions}
        if self._reads_one_position:
            return self._embed_read(read_positions(attention_mask, pooling), **arguments)
        return pool(self.backbone(**arguments).last_hidden_state, attention_mask, pooling)

    def _embed_packed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert self.packing, "a packed batch goes to an encoder that packs"
        packed = packed_texts(attention_mask, input_ids.shape[1])
        arguments = {
            "input_ids": input_ids,
            # Of four dimensions, so that transformers hands it to the attention as it is.
            "attention_mask": attention_mask[None, None],
            "position_ids": packed.positions[None] + self._first_position,
            "packed": packed,
        }
        if self._reads_one_position:
            return self._embed_read(packed.read(self.settings.pooling), **arguments)
        return packed.pool(self.backbone(**arguments).last_hidden_state, self.settings.pooling)

    def _embed_read(self, read: tuple[Tensor, Tensor] | None, **arguments: Any) -> Tensor:
        """Return the states [B, D] at the positions `read`, the only ones that the last layer computes."""
        states: Tensor = self.backbone(**arguments, read=read).last_hidden_state
        return states.squeeze(1)

    def training_flops(self, lengths: Sequence[int] | np.ndarray) -> float:
        """Count the FLOPs of a training step on texts of some lengths in tokens: of the adapter if there is one."""
        adapters = getattr(self.backbone, "peft_config", {})
        adapter = self.backbone.active_adapter if adapters else None
        if adapter not in self._training_flops:
            lora = adapters.get(adapter)
            backbone = untrained_backbone(self.backbone.config)
            self._training_flops[adapter] = count_flops(backbone, self.settings.pooling, lora, backward=True)
        return self._training_flops[adapter].of(lengths)

    def tokenize(self, texts: Sequence[str], side: str, max_tokens: int | None = None) -> Tokens:
        """Tokenise texts behind their side's prompt, cut at `max_tokens` (None: the encoder's), without padding.

        Raises:
            KeyError: the side has no prompt.
        """
        if side not in self.settings.prompts:
            raise KeyError(f"unknown side {side!r}; this encoder has {', '.join(sorted(self.settings.prompts))}")
        prompt, length = self.settings.prompts[side], max_tokens or self.settings.max_tokens

        def encoded(chunk: Sequence[str]) -> list[list[int]]:
            prompted = [prompt + text for text in chunk]
            return self.tokenizer(prompted, truncation=True, max_length=length, padding=False)["input_ids"]

        chunks = (texts[start : start + CHUNK_TEXTS] for start in range(0, len(texts), CHUNK_TEXTS))
        return Tokens.of(itertools.chain.from_iterable(map(encoded, chunks)))

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Make the arguments of `forward` for B texts, padded or packed, on the CPU; any thread may call it."""
        return packed_batch(tokens) if self.packing else padded_batch(tokens, self.tokenizer.pad_token_id)

    def batch(self, tokens: Tokens) -> dict[str, Tensor]:
        """Make the arguments of `forward` on the encoder's device."""
        return {name: tensor.to(self.device) for name, tensor in self.collate(tokens).items()}

    def pad(self, tokens: Tokens) -> dict[str, Tensor]:
        """Make a right-padded batch on the encoder's device, also where `collate` packs."""
        padded = padded_batch(tokens, self.tokenizer.pad_token_id)
        return {name: tensor.to(self.device) for name, tensor in padded.items()}

    def encode_batches(self, tokens: Tokens, batch_tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (row numbers [B], embeddings [B, D] float32) of batches, longest texts first.

        Args:
            batch_tokens: tokens that are embedded at once; on a CPU, the batches of all threads share them.
        """
        self.eval()
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1

        @torch.inference_mode()
        def embed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return rows, self(**self.batch(tokens.select(rows))).cpu().numpy()

        batches = list(token_budget_batches(tokens.lengths, batch_tokens // threads))
        yield from map_in_threads(embed, batches) if threads > 1 and len(batches) > 1 else map(embed, batches)

    def encode(self, texts: Sequence[str], side: str, batch_tokens: int = 4096, progress: str = "") -> np.ndarray:
        """Embed texts as unit vectors [len(texts), D] float32, in the order given; `progress` names a progress bar."""
        embeddings = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with tqdm(total=len(texts), desc=progress, unit="text", disable=not progress) as bar:
            for rows, vectors in self.encode_batches(self.tokenize(texts, side), batch_tokens):
                embeddings[rows] = vectors
                bar.update(len(rows))
        return embeddings

    def save(self, folder: Path) -> None:
        """Write backbone and tokenizer in the transformers format (safetensors), and the settings beside them."""
        self.backbone.save_pretrained(folder)
        # Otherwise the file would hold the cut of the last call, which differs after a run was resumed.
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS).write_text(json.dumps(asdict(self.settings), indent=2) + "\n", encoding="utf-8")


def load_encoder(location: str, settings: EncoderSettings, layers: Sequence[int] | None = None) -> Encoder:
    """Load a backbone folder with its tokenizer as an encoder.

    Raises:
        ValueError: the backbone has fewer positions than a text may have tokens.
    """
    backbone = load_backbone(location, layers)
    take_length(backbone, settings.max_tokens)
    return Encoder(backbone, load_tokenizer(location), settings)


def saved_encoder(folder: Path, rope_theta: float | None, max_tokens: int | None = None) -> Encoder:
    """Load an encoder that `Encoder.save` wrote, with the RoPE base and cut of a phase (None: as saved)."""
    settings = EncoderSettings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    if rope_theta is not None:
        settings = replace(settings, rope_theta=rope_theta)
    if max_tokens is not None:
        settings = replace(settings, max_tokens=max_tokens)
    return load_encoder(str(folder), settings)


def place(encoder: Encoder, *, precision: str, packing: bool) -> Encoder:
    """Move an encoder to this process's GPU, if there is one, and arrange how it computes."""
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    encoder.to(device)
    encoder.arrange(precision, packing)
    return encoder
