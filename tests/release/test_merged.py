"""A release carries the RoPE theta and the longest text of inference, for other people's tools too."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from stages.modeling.backbones import take_length
from stages.modeling.encoder import EncoderSettings, load_encoder, saved_encoder
from stages.release.merged import save_sentence_transformer

PROMPTS = {"query": "query : ", "document": "document : "}
# Longer than the 24 tokens of training, shorter and longer than the 200 of inference; the backbone's config says 64.
TEXTS = ["ba be bi", " ".join(["ba be bi bo bu"] * 30), " ".join(["ca ce ci co cu da"] * 60)]


@pytest.fixture(scope="module")
def trained(backbones: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    load_encoder(str(backbones["eurobert"]), EncoderSettings("last", PROMPTS, 24, 10_000.0)).save(folder)
    return folder


def test_base_and_merged_carry_theta_and_length_of_inference(trained: Path, tmp_path: Path) -> None:
    encoder = saved_encoder(trained, 40.0, 200)
    encoder.save(tmp_path / "base")
    save_sentence_transformer(encoder, PROMPTS, tmp_path / "merged")
    for folder in (tmp_path / "base", tmp_path / "merged"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        assert config["max_position_embeddings"] == 200
        assert config["rope_parameters"]["rope_theta"] == settings["rope_theta"] == 40.0
        assert settings["max_tokens"] == 200
    again = json.loads((trained / "encoder.json").read_text(encoding="utf-8"))
    assert (again["rope_theta"], again["max_tokens"]) == (10_000.0, 24), "the trained student is as it was"


def test_other_tools_read_as_far_and_at_the_same_theta(trained: Path, tmp_path: Path) -> None:
    encoder = saved_encoder(trained, 40.0, 200)
    save_sentence_transformer(encoder, PROMPTS, tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    assert model.max_seq_length == 200
    expected = encoder.encode(TEXTS, "document")
    np.testing.assert_allclose(model.encode(TEXTS, prompt_name="document"), expected, atol=1e-5)
    for other in (saved_encoder(trained, None, 200), saved_encoder(trained, 40.0, 150)):
        assert np.abs(other.encode(TEXTS, "document") - expected).max() > 1e-3


def test_a_table_of_positions_is_as_long_as_it_is(backbones: dict[str, Path]) -> None:
    settings = EncoderSettings("mean", PROMPTS, 65)
    with pytest.raises(ValueError, match="max_tokens is 65 but backbone 'bert' has 64 positions; lower max_tokens"):
        load_encoder(str(backbones["bert"]), settings)
    encoder = load_encoder(str(backbones["eurobert"]), settings)
    assert encoder.backbone.config.max_position_embeddings == 65
    take_length(encoder.backbone, 30)
    assert encoder.backbone.config.max_position_embeddings == 65


def test_a_pooler_that_nothing_uses_is_the_same_in_every_build(backbones: dict[str, Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(backbones["bert"]), EncoderSettings("mean", PROMPTS, 24))
    for build in ("one", "two"):
        save_sentence_transformer(encoder, PROMPTS, tmp_path / build)
    one, two = ((tmp_path / build / "model.safetensors").read_bytes() for build in ("one", "two"))
    assert b"pooler.dense.weight" in one and one == two
