"""FLOPs of four tiny backbones against what really runs, and against figures by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, Qwen3Config

from stages.modeling.adapters import add_adapter
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.modeling.flops import count_flops, untrained_backbone
from stages.modeling.tokens import Tokens

PROMPTS = {"query": "", "document": ""}
RANK = 4
every_architecture = pytest.mark.parametrize("architecture", ["bert", "eurobert", "qwen3", "modernbert"])


def lora(rank: int) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="FEATURE_EXTRACTION")


def counted(work: Callable[[], object]) -> int:
    """Matrix products that run; the plain attention kernel computes scores once and is counted on every device."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def texts(lengths: list[int]) -> Tokens:
    return Tokens.of([[5 + place % 90 for place in range(length)] for length in lengths])


def unpadded_batches(encoder: Encoder) -> tuple[list[int], list[dict[str, torch.Tensor]]]:
    """One text, and three of one length, so that nothing is padding."""
    return [7, 20, 20, 20], [encoder.pad(texts([7])), encoder.pad(texts([20, 20, 20]))]


@every_architecture
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter"])
def test_forward_and_training_are_what_runs(
    backbones: dict[str, Path], architecture: str, pooling: Any, adapted: bool
) -> None:
    encoder = load_encoder(str(backbones[architecture]), EncoderSettings(pooling, PROMPTS, 64))
    if adapted:
        add_adapter(encoder, "retrieval", rank=RANK, alpha=RANK)
    lengths, batches = unpadded_batches(encoder.train())
    with torch.no_grad():
        forward = sum(counted(lambda batch=batch: encoder(**batch)) for batch in batches)
    backbone = untrained_backbone(AutoConfig.from_pretrained(backbones[architecture]))
    assert forward == count_flops(backbone, pooling, lora(RANK) if adapted else None, backward=False).of(lengths)
    training = sum(counted(lambda batch=batch: encoder(**batch).sum().backward()) for batch in batches)
    assert training == encoder.training_flops(lengths)


def test_an_encoder_is_counted_as_it_stands(backbones: dict[str, Path]) -> None:
    """Some layers of it, then with an adapter; counting draws no random number, so training is not changed."""
    encoder = load_encoder(str(backbones["eurobert"]), EncoderSettings("mean", PROMPTS, 64), layers=[0, 2])
    state = torch.get_rng_state()
    whole = encoder.training_flops([9, 9])
    assert whole == counted(lambda: encoder(**encoder.pad(texts([9, 9]))).sum().backward())
    assert torch.equal(torch.get_rng_state(), state)
    add_adapter(encoder, "retrieval", rank=RANK, alpha=RANK)
    assert encoder.training_flops([9, 9]) < whole


@every_architecture
def test_frozen_token_embeddings_change_nothing(backbones: dict[str, Path], architecture: str) -> None:
    encoder = load_encoder(str(backbones[architecture]), EncoderSettings("last", PROMPTS, 64))
    encoder.backbone.get_input_embeddings().weight.requires_grad_(False)
    batch = encoder.pad(texts([9, 9]))
    assert counted(lambda: encoder(**batch).sum().backward()) == encoder.training_flops([9, 9])


def test_a_layer_by_hand() -> None:
    """One layer of Qwen3: 4 wide, 2 query heads and 1 key head of 4, MLP of 5; texts of 1 and 2 tokens."""
    config = Qwen3Config(
        vocab_size=10,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        intermediate_size=5,
    )

    def flops(pooling: Any, rank: int | None = None, *, backward: bool) -> float:
        return count_flops(untrained_backbone(config), pooling, rank and lora(rank), backward=backward).of([1, 2])

    attention_maps = 4 * 8 + 2 * (4 * 4) + 8 * 4  # query, key and value, output
    mlp = 3 * 4 * 5  # gate, up, down
    scores = 2 * 8 * (1 * 1 + 2 * 2)
    assert flops("mean", backward=False) == 2 * (3 * (attention_maps + mlp) + scores)
    of_all, of_one = 2 * (4 * 4), 4 * 8 + 8 * 4 + mlp  # key and value of 3 tokens; the rest, of each text's last
    assert flops("last", backward=False) == 2 * (3 * of_all + 2 * of_one + 2 * 8 * (1 + 2))
    assert flops("mean", backward=True) == 6 * (3 * (attention_maps + mlp) + scores)
    of_adapter = 2 * ((4 + 8) + 2 * (4 + 4) + (8 + 4) + 3 * (4 + 5))  # rank 2: down and up beside every map
    with_adapter = 2 * (3 * (attention_maps + mlp + of_adapter) + scores)
    assert flops("mean", 2, backward=False) == with_adapter
    # Backward: nothing for frozen weights, nor into the embeddings through query, key, value and their LoRA.
    passed_on = attention_maps + mlp - (4 * 8 + 2 * (4 * 4))
    backward = 2 * (3 * (passed_on + 2 * of_adapter - 2 * 3 * 4) + 2 * scores)
    assert flops("mean", 2, backward=True) == with_adapter + backward
