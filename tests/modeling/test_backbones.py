"""Backbones of other families than the tiny four, and what loading switches off."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, FNetConfig, FNetModel, MPNetConfig, MPNetModel, XLMRobertaConfig, XLMRobertaModel

from stages.modeling.backbones import layers_of, load_backbone
from stages.modeling.encoder import EncoderSettings, load_encoder, place

PROMPTS = {"query": "", "document": ""}
SHAPE: dict[str, Any] = {
    "vocab_size": 107,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize(
    ("model", "config"), [(XLMRobertaModel, XLMRobertaConfig), (MPNetModel, MPNetConfig)], ids=["xlm-roberta", "mpnet"]
)
def test_positions_of_the_roberta_family_begin_behind_the_padding_number(
    backbones: dict[str, Path], tmp_path: Path, sentences: list[str], model: Any, config: Any
) -> None:
    """Its own code numbers them from the token ids where nobody gives positions."""
    shutil.copytree(backbones["bert"], tmp_path / "folder")
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "folder" / file).unlink()
    torch.manual_seed(3)
    model(config(**SHAPE, pad_token_id=1)).save_pretrained(tmp_path / "folder")
    encoder = load_encoder(str(tmp_path / "folder"), EncoderSettings("mean", PROMPTS, 32)).eval()
    tokens = encoder.tokenize(sentences[:3], "query")
    plain = AutoModel.from_pretrained(tmp_path / "folder").eval()
    with torch.no_grad():
        states = plain(input_ids=torch.tensor(tokens[0])[None]).last_hidden_state.mean(dim=1)
        expected = torch.nn.functional.normalize(states, dim=-1).numpy()
        np.testing.assert_allclose(encoder(**encoder.batch(tokens[:1])).numpy(), expected, atol=1e-6)
        together = encoder(**encoder.batch(tokens))[:1].numpy()
    np.testing.assert_allclose(together, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "dropouts"),
    [
        ("bert", {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
        ("eurobert", {"attention_dropout": 0.5}),
        ("modernbert", {"attention_dropout": 0.1, "embedding_dropout": 0.1, "mlp_dropout": 0.1}),
    ],
)
def test_training_embeds_as_inference_does(
    backbones: dict[str, Path], tmp_path: Path, sentences: list[str], architecture: str, dropouts: dict[str, float]
) -> None:
    """A batch embedded twice, as gradient caching does, gives the same vectors."""
    shutil.copytree(backbones[architecture], tmp_path / "folder")
    file = tmp_path / "folder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dropouts))
    assert AutoModel.from_pretrained(tmp_path / "folder").config.to_dict().items() >= dropouts.items()
    encoder = load_encoder(str(tmp_path / "folder"), EncoderSettings("last", PROMPTS, 32))
    batch = encoder.batch(encoder.tokenize(sentences[:4], "query"))
    with torch.no_grad():
        torch.testing.assert_close(encoder.train()(**batch), encoder.eval()(**batch), rtol=0, atol=0)


def test_a_backbone_whose_vectors_depend_on_padding_is_refused(backbones: dict[str, Path], tmp_path: Path) -> None:
    """It takes no mask, so a text's vector would depend on the other texts of its batch."""
    shutil.copytree(backbones["bert"], tmp_path / "folder")
    torch.manual_seed(3)
    FNetModel(FNetConfig(**SHAPE)).save_pretrained(tmp_path / "folder")
    encoder = load_encoder(str(tmp_path / "folder"), EncoderSettings("mean", PROMPTS, 32))
    with pytest.raises(ValueError, match=r"'fnet' does not keep padded texts apart .*take another backbone"):
        place(encoder, precision="float32", packing=False)


def test_layers_are_the_longest_list_of_modules(backbones: dict[str, Path]) -> None:
    for architecture, folder in backbones.items():
        layers = layers_of(load_backbone(str(folder), layers=(2, 0)))
        assert len(layers) == 2, architecture
        assert all("Layer" in type(layer).__name__ for layer in layers)
