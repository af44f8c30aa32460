"""A BERT under rotary positions: the same layers, no end to its positions, saved and loaded as any backbone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel, JinaEmbeddingsV3Model

from stages.modeling.backbones import load_backbone
from stages.modeling.encoder import Encoder, EncoderSettings, load_tokenizer, saved_encoder
from stages.modeling.rotary import with_rotary_positions

PROMPTS = {"query": "query : ", "document": "document : "}


@pytest.fixture
def bert(backbones: dict[str, Path]) -> BertModel:
    backbone = load_backbone(str(backbones["bert"]), layers=(0, 2))
    assert isinstance(backbone, BertModel)
    return backbone.eval()


@pytest.fixture
def rotary(bert: BertModel, backbones: dict[str, Path]) -> Encoder:
    tokenizer = load_tokenizer(str(backbones["bert"]))
    return Encoder(with_rotary_positions(bert, 10000.0, 256), tokenizer, EncoderSettings("mean", PROMPTS, 128, 10000.0))


@torch.inference_mode()
def test_without_positions_it_is_the_same_network(bert: BertModel) -> None:
    """Where every position has one vector and nothing is turned, both give the same hidden states."""
    positions = bert.embeddings.position_embeddings.weight
    positions.copy_(positions[:1].expand_as(positions))
    backbone = with_rotary_positions(bert, 10000.0, 64).eval()
    turned = backbone(input_ids=torch.arange(5, 25)[None]).last_hidden_state
    backbone.rotary_emb.inv_freq.zero_()
    ids = torch.arange(5, 25)[None]
    expected = bert(input_ids=ids).last_hidden_state
    torch.testing.assert_close(backbone(input_ids=ids).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    assert (turned - expected).abs().max() > 1e-2, "RoPE turns queries and keys"


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_texts_may_be_longer_than_berts_and_padding_changes_nothing(
    bert: BertModel, backbones: dict[str, Path], pooling: str
) -> None:
    assert bert.config.max_position_embeddings == 64
    tokenizer = load_tokenizer(str(backbones["bert"]))
    settings = EncoderSettings(pooling, PROMPTS, 128, 10000.0)
    encoder = Encoder(with_rotary_positions(bert, 10000.0, 256), tokenizer, settings).eval()
    texts = ["ba be bi " * 60, "ba be", "bi " * 20]
    assert len(encoder.tokenize(texts, "query")[0]) == 128
    together = encoder.encode(texts, "query")
    alone = np.concatenate([encoder.encode([text], "query") for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_saved_and_loaded_with_the_theta_of_a_phase(rotary: Encoder, tmp_path: Path) -> None:
    rotary.save(tmp_path)
    again = saved_encoder(tmp_path, None)
    assert isinstance(again.backbone, JinaEmbeddingsV3Model)
    texts = ["ba be bi bo bu " * 9, "fa"]
    np.testing.assert_allclose(again.encode(texts, "query"), rotary.encode(texts, "query"), atol=1e-6)
    raised = saved_encoder(tmp_path, 1_000_000.0)
    assert raised.backbone.config.rope_parameters["rope_theta"] == 1_000_000.0
    assert np.abs(raised.encode(texts, "query") - again.encode(texts, "query")).max() > 1e-4


def test_another_backbone_is_refused(backbones: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="architecture rotary: got 'eurobert', expected a BERT; use pretrained"):
        with_rotary_positions(load_backbone(str(backbones["eurobert"])), 10000.0, 64)
