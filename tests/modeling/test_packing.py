"""Packed texts give the vectors and gradients of padded ones, over four backbones, poolings and an adapter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import MPNetConfig, MPNetModel

from stages.modeling import packing
from stages.modeling.adapters import add_adapter
from stages.modeling.backbones import layers_of
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.modeling.packing import packed_batch, packed_texts, padded_batch, use_packed_attention
from stages.modeling.rotary import with_rotary_positions
from stages.modeling.tokens import Tokens

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


def of_mixed_length(encoder: Encoder, sentences: list[str]) -> Tokens:
    tokens = encoder.tokenize([*sentences[:9], "ba", sentences[0]], "query")
    assert len(set(tokens.lengths)) > 4, "lengths must differ for padding to matter"
    return tokens


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
    tokens = of_mixed_length(encoder, sentences)
    packed, padded = encoder.collate(tokens), encoder.pad(tokens)
    assert packed["input_ids"].shape == (1, len(tokens.ids)), "no padding"
    torch.testing.assert_close(encoder(**packed), encoder(**padded), rtol=0, atol=1e-6)
    plain = loaded(backbones[architecture], pooling)
    if not adapted:
        torch.testing.assert_close(encoder(**packed), plain(**plain.collate(tokens)), rtol=0, atol=1e-6)

    weights = torch.randn(len(tokens), 32, generator=torch.Generator().manual_seed(0)) / len(tokens)
    found, expected = gradients(encoder, packed, weights), gradients(encoder, padded, weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_bert_under_rotary_positions_packs_too(
    backbones: dict[str, Path], sentences: list[str], pooling: Any
) -> None:
    """Its layers have names of the Llama family, and norms in other places."""
    bert = loaded(backbones["bert"])
    backbone = with_rotary_positions(bert.backbone, rope_theta=100.0, max_position_embeddings=64)
    encoder = Encoder(backbone, bert.tokenizer, EncoderSettings(pooling, PROMPTS, 32))
    encoder.arrange("float32", packing=True)
    tokens = of_mixed_length(encoder, sentences)
    embeddings = encoder(**encoder.collate(tokens))
    torch.testing.assert_close(embeddings, encoder(**encoder.pad(tokens)), rtol=0, atol=1e-6)
    alone = torch.cat([encoder(**encoder.collate(tokens[row : row + 1])) for row in range(len(tokens))])
    torch.testing.assert_close(embeddings, alone, rtol=0, atol=1e-6)


def test_batches_by_hand() -> None:
    tokens = Tokens.of([[5, 6, 7], [8]])
    padded = padded_batch(tokens, padding=0)
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    packed = packed_batch(tokens)
    assert packed["input_ids"].tolist() == [[5, 6, 7, 8]]
    assert torch.equal(packed["attention_mask"], padded["attention_mask"])
    where = packed_texts(packed["attention_mask"], total=4)
    assert where.boundaries.tolist() == [0, 3, 4]
    assert where.boundaries.dtype == torch.int32, "as the kernel wants it"
    assert where.rows.tolist() == [0, 0, 0, 1]
    assert where.positions.tolist() == [0, 1, 2, 0]
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [8.0]]])
    assert where.pool(hidden, "last").flatten().tolist() == [6.0, 8.0]
    assert where.pool(hidden, "cls").flatten().tolist() == [1.0, 8.0]
    assert where.pool(hidden, "mean").flatten().tolist() == [3.0, 8.0]


def by_definition(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    boundaries_of_keys: Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What PyTorch documents of its variable-length kernel: tokens [T, H, D], windows of (left, right), -1 for all."""
    assert boundaries.dtype == boundaries_of_keys.dtype == torch.int32
    assert longest == int(boundaries.diff().max())
    assert longest_key == int(boundaries_of_keys.diff().max())
    # It says nothing of where a window stands when a text has fewer queries than keys.
    assert boundaries is boundaries_of_keys or window_size == (-1, -1)
    assert query.dtype == key.dtype == value.dtype
    assert enable_gqa == (query.shape[1] != key.shape[1])
    out = []
    for text in range(len(boundaries) - 1):
        q = query[boundaries[text] : boundaries[text + 1]].float()
        k, v = (part[boundaries_of_keys[text] : boundaries_of_keys[text + 1]].float() for part in (key, value))
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
        ahead = torch.arange(len(k))[None, :] - torch.arange(len(q))[:, None]
        left, right = (reach if reach >= 0 else len(k) for reach in window_size)
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        shares = scores.masked_fill((ahead < -left) | (ahead > right), -torch.inf).softmax(dim=-1)
        out.append(torch.einsum("hqk,khd->qhd", shares, v))
    return torch.cat(out).to(query.dtype)


@pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3", "modernbert"])
def test_the_kernel_of_gpus_is_given_what_it_documents(
    backbones: dict[str, Path], sentences: list[str], monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """There is no GPU here: the kernel is replaced by its documentation."""
    calls: list[torch.dtype] = []

    def kernel(query: Tensor, *others: Any, **named: Any) -> Tensor:
        calls.append(query.dtype)
        return by_definition(query, *others, **named)

    plain = loaded(backbones[architecture])
    tokens = of_mixed_length(plain, sentences)
    expected = plain(**plain.collate(tokens))
    monkeypatch.setattr(packing, "varlen_attn", kernel)
    monkeypatch.setattr(packing, "runs_fused", lambda query: True)
    encoder = loaded(backbones[architecture], packs=True)
    torch.testing.assert_close(encoder(**encoder.collate(tokens)), expected, rtol=0, atol=1e-6)
    assert set(calls) == {torch.float32}
    calls.clear()
    encoder.arrange("bfloat16", packing=True)
    cosines = (encoder(**encoder.collate(tokens)) * expected).sum(dim=1)
    assert cosines.min() > 0.99
    assert set(calls) == {torch.bfloat16}, "autocast knows no such kernel, so the heads are cast for it"


def test_a_padded_batch_goes_through_a_packing_encoder(backbones: dict[str, Path], sentences: list[str]) -> None:
    encoder = loaded(backbones["modernbert"], packs=True)
    expected = encoder.encode(sentences[:9], "query", batch_tokens=64)
    encoder.arrange("float32", packing=False)
    assert encoder.collate(Tokens.of([[5], [6, 7]]))["input_ids"].shape == (2, 2)
    np.testing.assert_allclose(encoder.encode(sentences[:9], "query", batch_tokens=64), expected, atol=1e-6)


@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_gradient_checkpointing_changes_no_gradient(
    backbones: dict[str, Path], sentences: list[str], architecture: str, packs: bool
) -> None:
    """Layers run again in the backward pass."""
    encoder = loaded(backbones[architecture], packs=packs).train()
    tokens = of_mixed_length(encoder, sentences)
    weights = torch.randn(len(tokens), 32, generator=torch.Generator().manual_seed(0))
    expected = gradients(encoder, encoder.collate(tokens), weights)
    encoder.backbone.activation_checkpointing_enable({"use_reentrant": False})
    runs: list[nn.Module] = []
    layer = layers_of(encoder.backbone)[0]
    layer.get_submodule("intermediate" if architecture == "bert" else "mlp").register_forward_pre_hook(
        lambda module, inputs: runs.append(module)
    )
    found = gradients(encoder, encoder.collate(tokens), weights)
    assert len(runs) == 2, "the first layer ran again"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_a_backbone_with_an_attention_of_its_own_is_refused() -> None:
    backbone = MPNetModel(MPNetConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match=r"'mpnet' has its own; set engine\.packing"):
        use_packed_attention(backbone)


def test_a_backbone_that_mixes_texts_is_refused(backbones: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would that reads its neighbours by other means than attention."""
    whole = packing.packed_texts

    def one_text(mask: Tensor, total: int) -> packing.PackedTexts:
        where = whole(mask, total)
        return where._replace(rows=torch.zeros(total, dtype=torch.long), positions=torch.arange(total))

    monkeypatch.setattr("stages.modeling.encoder.packed_texts", one_text)
    with pytest.raises(ValueError, match=r"'bert' does not keep packed texts apart.*set engine.packing to false"):
        loaded(backbones["bert"], packs=True)
