"""Memory by hand, and activations against what a real pass keeps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from stages.modeling.backbones import load_backbone
from stages.modeling.flops import Maps, Shape
from stages.planning.memory import (
    LAYERS,
    Activations,
    Memory,
    activations,
    embedding_memory,
    training_memory,
)

# Two layers of 100 weights and 40 of token embeddings; 24 + 24 ends of linear maps.
SHAPE = Shape(2, 8, 8, Maps(200, 24, 24), Maps(48, 4, 12), Maps(0, 0, 0), 250, 40)
KEPT = Activations(token=100.0, fixed=7.0)


def memory(**changed: Any) -> Memory:
    usual: dict[str, Any] = {
        "rank": None,
        "frozen_embeddings": False,
        "micro_batch_tokens": 10,
        "checkpointing": False,
        "sharded_over": 1,
    }
    return training_memory(SHAPE, KEPT, **(usual | changed))


def test_a_trained_backbone() -> None:
    assert memory() == Memory(250 * 4, 250 * 4, 250 * 8, 10 * 100 + 7)
    assert memory().total == 250 * 16 + 1007
    assert memory(frozen_embeddings=True) == Memory(250 * 4, 210 * 4, 210 * 8, 1007)


def test_an_adapter_on_a_frozen_backbone() -> None:
    assert memory(rank=2, frozen_embeddings=True) == Memory((250 + 96) * 4, 96 * 4, 96 * 8, 1007)


def test_sharding_divides_all_but_activations() -> None:
    assert memory(sharded_over=4) == Memory(250, 250, 500, 1007)


def test_checkpointing_keeps_each_layers_input_and_one_layer() -> None:
    assert memory(checkpointing=True).activations == 10 * (2 * 8 * 4 + 100 / 2) + 7


def test_a_frozen_model_keeps_one_layer_at_a_time() -> None:
    assert embedding_memory(SHAPE, KEPT, 10) == Memory(1000, 0, 0, 10 * 50 + 7)


@pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3", "modernbert"])
def test_activations_are_what_a_real_pass_keeps(backbones: dict[str, Path], architecture: str) -> None:
    """Of the same layers, with data: every floating tensor that autograd keeps, but for weights."""
    backbone: Any = load_backbone(str(backbones[architecture]), range(LAYERS)).train()

    def kept(tokens: int) -> int:
        storages: dict[int, Any] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        own = {value.untyped_storage().data_ptr() for value in (*backbone.parameters(), *backbone.buffers())}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = backbone(input_ids=torch.zeros(1, tokens, dtype=torch.long)).last_hidden_state
        assert states.requires_grad
        return sum(storage.nbytes() for address, storage in storages.items() if address not in own)

    config = AutoConfig.from_pretrained(backbones[architecture])
    found = activations(config, num_layers=LAYERS, precision=torch.float32)
    assert found.token * 64 + found.fixed == kept(64)
    assert activations(config, num_layers=2 * LAYERS, precision=torch.float32).token == 2 * found.token


def test_half_precision_keeps_less_a_token_and_a_copy_of_the_weights(backbones: dict[str, Path]) -> None:
    config = AutoConfig.from_pretrained(backbones["eurobert"])
    whole, half = (activations(config, LAYERS, precision) for precision in (torch.float32, torch.bfloat16))
    assert whole.token / 2 < half.token < whole.token
    linear = LAYERS * (4 * 32 * 32 + 3 * 32 * 48)
    assert half.fixed - whole.fixed == pytest.approx(2 * linear, rel=0.05)
