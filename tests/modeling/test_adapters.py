"""LoRA adapters on a frozen backbone: trained, saved by name, loaded beside each other, averaged, merged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from stages.modeling.adapters import (
    add_adapter,
    average_adapter,
    load_adapter,
    merge_adapter,
    save_adapter,
    without_adapter,
)
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder

PROMPTS = {"query": "query : ", "document": ""}
each_architecture = pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3", "modernbert"])

Load = Callable[[str], Encoder]


@pytest.fixture
def load(backbones: dict[str, Path]) -> Load:
    return lambda architecture: load_encoder(str(backbones[architecture]), EncoderSettings("last", PROMPTS, 24))


def taught(encoder: Encoder, task: str, seed: int, texts: list[str], rank: int = 4) -> Encoder:
    """The encoder with a new adapter, pulled towards random targets for some steps."""
    torch.manual_seed(seed)
    add_adapter(encoder, task, rank, rank)
    optimizer = torch.optim.AdamW([one for one in encoder.parameters() if one.requires_grad], lr=0.01)
    targets = torch.nn.functional.normalize(torch.randn(8, encoder.dimensions), dim=-1)
    batch = encoder.pad(encoder.tokenize(texts[:8], "query"))
    for _ in range(10):
        optimizer.zero_grad()
        (1 - (encoder(**batch) * targets).sum(dim=1)).mean().backward()
        optimizer.step()
    return encoder


@each_architecture
def test_only_the_adapter_learns(load: Load, sentences: list[str], architecture: str) -> None:
    encoder = load(architecture)
    before = {name: value.clone() for name, value in encoder.backbone.named_parameters()}
    taught(encoder, "retrieval", 1, sentences)
    after = dict(encoder.backbone.named_parameters())
    assert {name for name, value in after.items() if value.requires_grad} == {name for name in after if "lora_" in name}
    for name, value in after.items():
        if "lora_" not in name:
            assert value.grad is None, name
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert torch.equal(value, before[plain]), name
    pairs = [value for name, value in after.items() if "lora_B" in name]
    assert len(pairs) > 3
    assert all(value.any() for value in pairs), "every linear map has an adapter, and each learned"


@each_architecture
def test_a_new_adapter_changes_nothing_and_without_it_the_base_is_back(
    load: Load, sentences: list[str], architecture: str
) -> None:
    base = load(architecture).encode(sentences[:6], "query")
    encoder = load(architecture)
    add_adapter(encoder, "retrieval", 4, 8)
    np.testing.assert_array_equal(encoder.encode(sentences[:6], "query"), base)

    encoder = taught(load(architecture), "retrieval", 1, sentences)
    adapted = encoder.encode(sentences[:6], "query")
    assert np.abs(adapted - base).max() > 0.01
    with without_adapter(encoder):
        np.testing.assert_array_equal(encoder.encode(sentences[:6], "query"), base)
    np.testing.assert_array_equal(encoder.encode(sentences[:6], "query"), adapted)


@each_architecture
def test_two_adapters_saved_by_name_come_back_as_they_were(
    load: Load, sentences: list[str], tmp_path: Path, architecture: str
) -> None:
    expected = {}
    for seed, task in enumerate(("retrieval", "text-matching")):
        encoder = taught(load(architecture), task, seed, sentences)
        expected[task] = encoder.encode(sentences[:6], "query")
        save_adapter(encoder, task, tmp_path / task)
        assert {path.name for path in (tmp_path / task).iterdir()} >= {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
    assert {path.name for path in tmp_path.iterdir()} == {"retrieval", "text-matching"}
    assert np.abs(expected["retrieval"] - expected["text-matching"]).max() > 0.01

    both = load(architecture)
    for task in expected:
        load_adapter(both, task, tmp_path / task)
        np.testing.assert_allclose(both.encode(sentences[:6], "query"), expected[task], atol=1e-6)
    for task, embeddings in expected.items():  # one does not disturb the other
        both.backbone.set_adapter(task)
        np.testing.assert_allclose(both.encode(sentences[:6], "query"), embeddings, atol=1e-6)
    assert set(both.backbone.peft_config) == {"retrieval", "text-matching"}


def test_what_is_saved_is_peft_as_others_read_it(load: Load, sentences: list[str], tmp_path: Path) -> None:
    encoder = taught(load("eurobert"), "clustering", 3, sentences)
    save_adapter(encoder, "clustering", tmp_path / "clustering")
    config = json.loads((tmp_path / "clustering" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 4)
    assert config["target_modules"] == sorted(config["target_modules"]), "the same file from every process"
    plain = load("eurobert")
    plain.backbone = PeftModel.from_pretrained(plain.backbone, str(tmp_path / "clustering"))
    np.testing.assert_allclose(plain.encode(sentences[:6], "query"), encoder.encode(sentences[:6], "query"), atol=1e-6)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl"}]


@each_architecture
def test_merged_equals_the_adapter(load: Load, sentences: list[str], tmp_path: Path, architecture: str) -> None:
    encoder = taught(load(architecture), "retrieval", 1, sentences)
    adapted = encoder.encode(sentences[:20], "query")
    merge_adapter(encoder)
    assert not isinstance(encoder.backbone, PeftModel)
    assert not [name for name, _ in encoder.named_parameters() if "lora" in name]
    np.testing.assert_allclose(encoder.encode(sentences[:20], "query"), adapted, atol=1e-5)
    encoder.save(tmp_path / "merged")
    again = load_encoder(str(tmp_path / "merged"), encoder.settings)
    np.testing.assert_allclose(again.encode(sentences[:20], "query"), adapted, atol=1e-5)


def test_an_adapter_of_nothing_is_refused_and_writes_nothing(load: Load, tmp_path: Path) -> None:
    encoder = load("bert")
    add_adapter(encoder, "retrieval", 4, 4)
    with pytest.raises(ValueError, match="adapter retrieval is zero: its training changed nothing"):
        save_adapter(encoder, "retrieval", tmp_path / "retrieval")
    assert not (tmp_path / "retrieval").exists()


def test_an_adapter_under_another_name_is_refused_and_writes_nothing(
    load: Load, sentences: list[str], tmp_path: Path
) -> None:
    encoder = taught(load("bert"), "retrieval", 1, sentences)
    with pytest.raises(ValueError, match="expected the adapter's own name: retrieval"):
        save_adapter(encoder, "retrieval", tmp_path / "other")
    assert list(tmp_path.iterdir()) == []


def test_averaging_by_hand(load: Load, sentences: list[str]) -> None:
    encoder = taught(load("bert"), "retrieval", 1, sentences)
    last = {name: value.detach().clone() for name, value in encoder.named_parameters() if "lora_" in name}
    earlier = {name: torch.full_like(value, 2.0) for name, value in last.items()}
    base = {name: value.clone() for name, value in encoder.named_parameters() if "lora_" not in name}
    average_adapter(encoder, earlier, 0.25)
    for name, value in encoder.named_parameters():
        expected = 0.75 * last[name] + 0.5 if name in last else base[name]
        torch.testing.assert_close(value.detach(), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_averaging_all_or_nothing(load: Load, sentences: list[str], weight: float) -> None:
    encoder = taught(load("bert"), "retrieval", 1, sentences)
    last = {name: value.detach().clone() for name, value in encoder.named_parameters() if "lora_" in name}
    earlier = {name: torch.randn_like(value) for name, value in last.items()}
    average_adapter(encoder, earlier, weight)
    for name, expected in (earlier if weight else last).items():
        torch.testing.assert_close(dict(encoder.named_parameters())[name].detach(), expected)
