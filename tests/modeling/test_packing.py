"""Packed texts give the vectors and gradients of padded ones, over four backbones, poolings and an adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.modeling.adapters import add_adapter
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder

PROMPTS = {"query": "query : ", "document": "document : "}
FITTING = [
    (architecture, pooling)
    for architecture in ("bert", "eurobert", "qwen3", "modernbert")
    for pooling in ("last", "mean", "cls")
    if (architecture, pooling) != ("qwen3", "cls")
]


def loaded(folder: Path, pooling: Any = "last", packs: bool = False) -> Encoder:
    encoder = load_encoder(str(folder), EncoderSettings(pooling, PROMPTS, 32))
    encoder.arrange("float32", packs)
    return encoder


def of_mixed_length(encoder: Encoder, sentences: list[str]) -> list[list[int]]:
    token_ids = encoder.tokenize([*sentences[:9], "ba", sentences[0]], "query")
    assert len(set(map(len, token_ids))) > 4, "lengths must differ for padding to matter"
    return token_ids


def gradients(encoder: Encoder, batch: dict[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    encoder.zero_grad()
    (encoder(**batch) * weights).sum().backward()
    return {name: value.grad.clone() for name, value in encoder.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(("architecture", "pooling"), FITTING)
@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter"])
def test_vectors_and_gradients_are_those_of_a_padded_batch(
    backbones: dict[str, Path], sentences: list[str], architecture: str, pooling: str, adapted: bool
) -> None:
    encoder = loaded(backbones[architecture], pooling, packs=True)
    if adapted:
        add_adapter(encoder, "retrieval", rank=4, alpha=4)
        for name, value in encoder.named_parameters():
            if "lora_B" in name:  # zero at the start, so it would hide what stands before it
                nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(1))
    token_ids = of_mixed_length(encoder, sentences)
    packed, padded = encoder.collate(token_ids), encoder.pad(token_ids)
    assert packed["input_ids"].shape == (1, sum(map(len, token_ids))), "no padding"
    torch.testing.assert_close(encoder(**packed), encoder(**padded), rtol=0, atol=1e-6)
    plain = loaded(backbones[architecture], pooling)
    if not adapted:
        torch.testing.assert_close(encoder(**packed), plain(**plain.collate(token_ids)), rtol=0, atol=1e-6)

    weights = torch.randn(len(token_ids), 32, generator=torch.Generator().manual_seed(0)) / len(token_ids)
    found, expected = gradients(encoder, packed, weights), gradients(encoder, padded, weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
