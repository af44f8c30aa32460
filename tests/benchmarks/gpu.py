"""A GPU's figures at the full-size students' shapes, with random weights: training steps, embedding, memory."""

import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EuroBertConfig, EuroBertModel, PreTrainedModel, Qwen3Config, Qwen3Model

from stages.modeling.encoder import Encoder, EncoderSettings
from stages.modeling.tokenization import load_tokenizer
from stages.modeling.tokens import Tokens
from stages.objectives.distillation import DistillationObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.throughput import gemm_peak
from tests.benchmarks.engine import timed_steps
from tests.benchmarks.measure import Figure, in_turns, middle, seconds
from tests.benchmarks.students import PROMPTS, as_peer
from tests.benchmarks.texts import TEACHER

PEER = "SentenceTransformer.encode"
TOKENS, STEPS, WARM_STEPS, TEACHER_DIMENSIONS = 512, 8, 3, 2560
# Texts of a step, and tokens of them in work at once: table A1's batch of one device, and what fits into 80 GB.
BATCH_SIZE, MICRO_BATCH_TOKENS = 512, {"nano": 65_536, "small": 16_384}
EMBED_BATCH_TOKENS = 65_536
PEER_BATCH_SIZES = (64, 128, 256, 512)
# Ways to train, by what differs from the first, `training_speed`'s arguments or the engine's settings.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "step": {},
    "eager_step": {"compile": False},
    "checkpointed_step": {"gradient_checkpointing": True},
    "mixed_step": {"shortest": 16},
    "padded_mixed_step": {"shortest": 16, "packing": False},
}
ROPE = {"rope_type": "default", "rope_theta": 250_000.0}


def nano() -> PreTrainedModel:
    """EuroBERT-210m's shape."""
    config = EuroBertConfig(
        vocab_size=128_256,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=8192,
        pad_token_id=0,
        rope_parameters=ROPE,
    )
    return EuroBertModel(config)


def small() -> PreTrainedModel:
    """Qwen3-0.6B's shape."""
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        max_position_embeddings=32_768,
        pad_token_id=0,
        use_cache=False,
        rope_parameters=ROPE,
    )
    return Qwen3Model(config)


STUDENTS: Mapping[str, Callable[[], PreTrainedModel]] = {"nano": nano, "small": small}


def gpu_speed(
    texts: Sequence[str],
    device: torch.device,
    students: Mapping[str, Callable[[], PreTrainedModel]] = STUDENTS,
    ways: Mapping[str, Mapping[str, Any]] = WAYS,
    rounds: int = 3,
    **sizes: Any,
) -> dict[str, Figure]:
    """Figures of each student, in bfloat16.

    Args:
        sizes: of the training step, see `training_speed`.
    """
    figures: dict[str, Figure] = {}
    for name, build in students.items():
        sizes_of = {"micro_batch_tokens": MICRO_BATCH_TOKENS.get(name)} | sizes
        found = {}
        for way, settings in ways.items():
            found |= training_speed(student(build, device), way, **sizes_of | settings)
        found |= embedding_speed(student(build, device), texts, rounds)
        figures |= {f"gpu_{name}_{key}": figure for key, figure in found.items()}
    return figures


def student(build: Callable[[], PreTrainedModel], device: torch.device) -> Encoder:
    """An encoder with random weights; what an earlier one left in the GPU's memory is given back."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(17)
    return Encoder(build(), load_tokenizer(TEACHER), EncoderSettings("last", PROMPTS, TOKENS)).to(device)


def training_speed(
    encoder: Encoder,
    way: str,
    *,
    micro_batch_tokens: int,
    tokens: int = TOKENS,
    shortest: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    steps: int = STEPS,
    **engine: Any,
) -> dict[str, Figure]:
    """Distillation steps on texts of random tokens, compiled and packed: rate, share of the peak, memory.

    Args:
        way: name of the figures.
        tokens: of the longest text.
        shortest: tokens of the shortest; every length between is as likely.
        engine: settings that differ.
    """
    generator = np.random.default_rng(17)
    count = batch_size * steps
    lengths = generator.integers(min(shortest, tokens), tokens + 1, count)
    tokens = Tokens.of(generator.integers(1000, 30_000, length).tolist() for length in lengths)
    teacher = torch.from_numpy(generator.normal(size=(count, TEACHER_DIMENSIONS)).astype(np.float16))
    projection = nn.Linear(encoder.dimensions, TEACHER_DIMENSIONS)
    objective = DistillationObjective(encoder, projection, [encoder.dimensions], TrainingTexts(tokens, teacher))
    on_gpu = encoder.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(encoder.device)
    timed = timed_steps(
        objective,
        np.array_split(np.arange(count), steps),
        min(WARM_STEPS, steps - 1),
        **{"precision": "bfloat16", "packing": True, "compile": True, "micro_batch_tokens": micro_batch_tokens}
        | engine,
    )
    peak = gemm_peak(encoder.device, torch.bfloat16)
    flops = sum(map(encoder.training_flops, timed.lengths))
    figures = {
        f"{way}_tokens_per_second": Figure(timed.rate, f"tokens/s, {micro_batch_tokens} at once"),
        f"{way}_mfu": Figure(flops / timed.seconds / peak, "", target=">= 0.45"),
    }
    if on_gpu:
        figures[f"{way}_bytes"] = Figure(torch.cuda.max_memory_allocated(encoder.device), "bytes")
    return figures


def embedding_speed(encoder: Encoder, texts: Sequence[str], rounds: int) -> dict[str, Figure]:
    """Real texts through our encoder and through the peer's, which holds its weights in bfloat16."""
    encoder.arrange("bfloat16", packing=True)
    with tempfile.TemporaryDirectory() as folder:
        peer = as_peer(encoder, Path(folder)).eval().to(encoder.device, torch.bfloat16)

    def run_peer(batch_size: int) -> float:
        return seconds(lambda: peer.encode(list(texts), prompt_name="document", batch_size=batch_size))

    def run_ours() -> float:
        return seconds(lambda: encoder.encode(texts, "document", EMBED_BATCH_TOKENS))

    run_ours()  # warm, and so is the peer by its second call
    run_peer(PEER_BATCH_SIZES[0])
    batch_size = min(PEER_BATCH_SIZES, key=run_peer)
    found = in_turns({"ours": run_ours, "peer": lambda: run_peer(batch_size)}, rounds)
    ratio = middle(found["peer"]) / middle(found["ours"])
    tokens = len(encoder.tokenize(texts, "document").ids)
    return {
        "embed_tokens_per_second": Figure(tokens / middle(found["ours"]), "tokens/s"),
        "embed_ratio": Figure(ratio, f"batch {batch_size}", PEER, ratio, ">= 2"),
    }
