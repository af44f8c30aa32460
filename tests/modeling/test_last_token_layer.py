"""The last-token layer gives what the whole layer gives at the position read, and computes no more than that."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, Qwen3Config, Qwen3Model

from stages.modeling.backbones import layers_of
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.last_token_layer import LastTokenLayer, use_last_token_layer
from stages.modeling.pooling import read_positions
from stages.modeling.tokens import Tokens

FAMILY = ["eurobert", "qwen3"]
in_family = pytest.mark.parametrize("architecture", FAMILY)
# Right and left padding, and a text alone.
MASKS = [[[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], [[0, 0, 1, 1], [1, 1, 1, 1]], [[1, 1, 1]]]


def batch(mask: list[list[int]]) -> dict[str, torch.Tensor]:
    attention_mask = torch.tensor(mask)
    return {
        "input_ids": torch.randint(5, 60, attention_mask.shape, generator=torch.Generator().manual_seed(3)),
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(dim=1) - 1).clamp(min=0),
    }


@in_family
@pytest.mark.parametrize("mask", MASKS, ids=["right", "left", "alone"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_and_gradients_are_those_of_the_whole_layer(
    backbones: dict[str, Path], architecture: str, mask: list[list[int]], attention: str
) -> None:
    backbone = AutoModel.from_pretrained(backbones[architecture], attn_implementation=attention)
    inputs = batch(mask)
    read = read_positions(inputs["attention_mask"], "last")
    weights = torch.randn(len(mask), backbone.config.hidden_size, generator=torch.Generator().manual_seed(0))

    def states_and_gradients(**others: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        backbone.zero_grad()
        hidden = backbone(**inputs, **others).last_hidden_state
        states = hidden.squeeze(1) if others else hidden[read]
        (states * weights).sum().backward()
        return states.detach(), {name: value.grad for name, value in backbone.named_parameters()}

    expected, gradients = states_and_gradients()
    assert use_last_token_layer(backbone, "last")
    states, found = states_and_gradients(read=read)
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-6)
    for name, value in gradients.items():
        assert (found[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


@in_family
def test_only_keys_and_values_are_of_every_token(backbones: dict[str, Path], architecture: str) -> None:
    backbone = AutoModel.from_pretrained(backbones[architecture])
    use_last_token_layer(backbone, "last")
    rows: dict[str, int] = {}
    for name, module in layers_of(backbone)[-1].named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: rows.update({name: output[..., 0].numel()})
            )
    inputs = batch(MASKS[0])
    backbone(**inputs, read=read_positions(inputs["attention_mask"], "last"))
    wide = {"self_attn.k_proj", "self_attn.v_proj"}
    assert {name for name, count in rows.items() if count == 15} == wide
    assert {name for name, count in rows.items() if count == 3} == rows.keys() - wide


@in_family
def test_a_traced_graph_takes_other_batches(backbones: dict[str, Path], architecture: str) -> None:
    """As the release's graphs are made: what tracing takes for a constant would fix the number of texts."""
    encoder = load_encoder(str(backbones[architecture]), EncoderSettings("last", {"document": ""}, 32)).eval()
    one, two = (encoder.pad(Tokens.of(texts)) for texts in ([[5, 6], [7, 8, 9]], [[5, 6, 7, 8], [9, 3], [7]]))
    with torch.inference_mode():
        graph = torch.jit.trace(encoder, example_kwarg_inputs=one, check_trace=False)
        torch.testing.assert_close(graph(**two), encoder(**two), rtol=0, atol=1e-6)


@in_family
def test_without_positions_the_backbone_is_whole(backbones: dict[str, Path], architecture: str) -> None:
    backbone = AutoModel.from_pretrained(backbones[architecture])
    inputs = batch(MASKS[0])
    expected = backbone(**inputs).last_hidden_state
    assert use_last_token_layer(backbone, "last") and use_last_token_layer(backbone, "last"), (
        "a second encoder may do so again"
    )
    assert not isinstance(layers_of(backbone)[-1].forward._whole, LastTokenLayer)
    assert torch.equal(backbone(**inputs).last_hidden_state, expected)
    assert backbone.state_dict().keys() == AutoModel.from_pretrained(backbones[architecture]).state_dict().keys()


def test_other_layers_stay_whole(backbones: dict[str, Path]) -> None:
    loaded = {name: AutoModel.from_pretrained(folder) for name, folder in backbones.items()}
    poolings = {
        name: [one for one in ("last", "cls", "mean") if use_last_token_layer(backbone, one)]
        for name, backbone in loaded.items()
    }
    assert poolings == {
        "bert": [],
        "modernbert": [],
        "eurobert": ["last", "cls"],
        "qwen3": ["last"],  # a first token under a causal mask sees only itself
    }
    windowed = Qwen3Config(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        use_sliding_window=True,
        sliding_window=2,
        max_window_layers=1,
    )
    assert not use_last_token_layer(Qwen3Model(windowed), "last"), (
        "a last token behind a window does not see its whole text"
    )
