"""An encoder as a graph of tensors, and what stands beside a graph: its tokenizer and what a caller has to know.

Shapes: B batch, L tokens, D embedding dimension.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from stages.modeling.encoder import Encoder
from stages.release.checksums import write_json

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "embeddings"
SETTINGS = "embedder.json"


class Graph(nn.Module):
    """Tokens to unit vectors: positions, pooling and normalisation are inside."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[B, L] ids and mask, padded on either side -> unit embeddings [B, D]."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask)


def example_batch(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Two texts of two lengths, so that a traced graph keeps its attention mask."""
    side = next(iter(encoder.settings.prompts))
    return encoder.pad(encoder.tokenize(["a", "a longer text of several words"], side))


def save_beside(encoder: Encoder, prompts: Mapping[str, str], folder: Path) -> None:
    """Write tokenizer.json, which cuts, ends and pads texts by itself, and embedder.json with the prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    # A copy: the encoder's own cuts and pads as it is told with each call.
    tokenizer = encoder.tokenizer.backend_tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer.enable_truncation(encoder.settings.max_tokens)
    padding = {"pad_id": encoder.tokenizer.pad_token_id, "pad_token": encoder.tokenizer.pad_token}
    tokenizer.enable_padding(direction=encoder.tokenizer.padding_side, **padding)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = asdict(encoder.settings) | {"prompts": dict(prompts), "dimensions": encoder.dimensions}
    write_json(folder / SETTINGS, settings | {"padding_side": encoder.tokenizer.padding_side, "normalized": True})
