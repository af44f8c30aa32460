"""FLOPs by formula against PyTorch's own counter on four tiny backbones, and against figures by hand.

The counter adds up the matrix products that ran. With the plain attention kernel (the others compute scores again in
the backward pass, and are not counted on every device) formula and counter agree to the last one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, Qwen3Config

from stages.modeling.adapters import add_adapter
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.modeling.flops import forward_flops, shape_of, shape_of_config, training_flops
from stages.modeling.tokens import Tokens

PROMPTS = {"query": "", "document": ""}
RANK = 4
every_architecture = pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3", "modernbert"])
poolings = pytest.mark.parametrize("pooling", ["last", "mean"])


def loaded(folder: Path, pooling: Any, adapted: bool) -> Encoder:
    encoder = load_encoder(str(folder), EncoderSettings(pooling, PROMPTS, 64))
    if adapted:
        add_adapter(encoder, "retrieval", rank=RANK, alpha=RANK)
    return encoder.train()


def counted(work: Callable[[], object]) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def texts(lengths: list[int]) -> Tokens:
    return Tokens.of([[5 + place % 90 for place in range(length)] for length in lengths])


@every_architecture
@poolings
@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter"])
def test_forward_and_training_are_what_runs(
    backbones: dict[str, Path], architecture: str, pooling: str, adapted: bool
) -> None:
    encoder = loaded(backbones[architecture], pooling, adapted)
    lengths = [7, 20, 20, 20]
    # One text, and three of one length in a batch: nothing is padding.
    batches = [encoder.pad(texts(lengths[:1])), encoder.pad(texts(lengths[1:]))]
    rank = RANK if adapted else None
    with torch.no_grad():
        forward = sum(counted(lambda batch=batch: encoder(**batch)) for batch in batches)
    assert forward == forward_flops(encoder.shape, lengths, narrowed=pooling != "mean", rank=rank)
    training = sum(counted(lambda batch=batch: encoder(**batch).sum().backward()) for batch in batches)
    assert training == encoder.training_flops(lengths)


@every_architecture
def test_frozen_token_embeddings_change_nothing(backbones: dict[str, Path], architecture: str) -> None:
    encoder = loaded(backbones[architecture], "last", adapted=False)
    encoder.backbone.get_input_embeddings().weight.requires_grad_(False)
    batch = encoder.pad(texts([9, 9]))
    assert counted(lambda: encoder(**batch).sum().backward()) == encoder.training_flops([9, 9])


def test_a_layer_by_hand() -> None:
    """One layer of Qwen3: 4 wide, 2 query heads and 1 key head of 3, MLP of 5; texts of 1 and 2 tokens."""
    config = Qwen3Config(
        vocab_size=10,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=3,
        intermediate_size=5,
    )
    shape = shape_of_config(config, num_layers=None)
    attention_maps = 4 * 6 + 2 * (4 * 3) + 6 * 4  # query, key and value, output
    mlp = 3 * 4 * 5  # gate, up, down
    assert shape.linears.weights == attention_maps + mlp
    assert shape.parameters == 10 * 4 + attention_maps + mlp + (4 + 4 + 4 + 3 + 3)  # the norms' last
    assert shape.embedding_parameters == 40
    scores = 2 * 6 * (1 * 1 + 2 * 2)
    assert forward_flops(shape, [1, 2], narrowed=False, rank=None) == 2 * (3 * (attention_maps + mlp) + scores)
    of_all, of_one = 2 * (4 * 3), 4 * 6 + 6 * 4 + mlp  # key and value of 3 tokens; the rest, of each text's last
    narrowed = 3 * of_all + 2 * of_one + 2 * 6 * (1 + 2)
    assert forward_flops(shape, [1, 2], narrowed=True, rank=None) == 2 * narrowed
    assert training_flops(shape, [1, 2], narrowed=False, rank=None) == 6 * (3 * (attention_maps + mlp) + scores)
    lora = 2 * ((4 + 6) + 2 * (4 + 3) + (6 + 4) + 3 * (4 + 5))  # rank 2: down and up beside every map
    with_lora = forward_flops(shape, [1, 2], narrowed=False, rank=2)
    assert with_lora == 2 * (3 * (attention_maps + mlp + lora) + scores)
    # Backward: nothing for frozen weights, nor into the embeddings through query, key, value and their LoRA.
    passed_on = attention_maps + mlp - (4 * 6 + 2 * (4 * 3))
    assert training_flops(shape, [1, 2], narrowed=False, rank=2) == with_lora + 2 * (
        3 * (passed_on + 2 * lora - 2 * 3 * 4) + 2 * scores
    )


@every_architecture
def test_parameters_are_those_of_the_loaded_backbone(backbones: dict[str, Path], architecture: str) -> None:
    encoder = loaded(backbones[architecture], "last", adapted=False)
    assert shape_of(encoder.backbone) == encoder.shape
    assert encoder.shape.parameters == sum(value.numel() for value in encoder.backbone.parameters())
    first = shape_of_config(AutoConfig.from_pretrained(backbones[architecture]), num_layers=1)
    assert first.num_layers == 1
    assert first.linears.weights * 3 == encoder.shape.linears.weights


def test_an_adapter_leaves_the_shape_of_the_backbone(backbones: dict[str, Path]) -> None:
    encoder = loaded(backbones["eurobert"], "last", adapted=True)
    assert encoder.shape == loaded(backbones["eurobert"], "last", adapted=False).shape
