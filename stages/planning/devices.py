"""Devices that a plan counts on: cards of a table by their peak, and this machine by real passes that are timed."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
import torch

from stages.modeling.adapters import add_adapter
from stages.modeling.backbones import layers_of
from stages.modeling.tokens import Tokens
from stages.planning.models import PlannedModel
from stages.recipe.engine import Engine
from stages.training.throughput import gemm_peak

DeviceName = Literal["here", "h100", "a100", "l4"]
# Peaks in FLOP/s of the data sheets: float32 without TF32, as PyTorch has it, and dense bfloat16. Bytes of memory.
CARDS = {
    "h100": ("H100 SXM 80 GB", {"float32": 67e12, "bfloat16": 989e12}, 80e9),
    "a100": ("A100 SXM 80 GB", {"float32": 19.5e12, "bfloat16": 312e12}, 80e9),
    "l4": ("L4 24 GB", {"float32": 30.3e12, "bfloat16": 121e12}, 24e9),
}
# Share of the peak to count on: compiled, packed steps of nano and small reach 0.38 (docs/results/benchmarks.md).
CARD_SHARE = 0.35
# Tokens of a pass that is timed (a CPU is as fast with few), and seconds in which passes are repeated.
TIMED_TOKENS, TIMED_SECONDS = {"cpu": 2048, "cuda": 65_536}, 1.0


@dataclass(frozen=True)
class Device:
    """A device of each process; without a `share` of its peak to count on, it is this machine, and passes are timed."""

    name: str
    peak: float  # FLOP/s
    memory: float  # bytes
    share: float | None


def find_device(name: DeviceName, engine: Engine, share: float | None) -> Device:
    """Return a card of the table, or this machine; `share` replaces the share of the peak to count on."""
    if name in CARDS:
        card, peaks, memory = CARDS[name]
        return Device(card, peaks[engine.precision], memory, share or CARD_SHARE)
    memory = float(psutil.virtual_memory().total)
    torch.set_num_threads(engine.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        memory = float(torch.cuda.get_device_properties(device).total_memory)
    return Device(f"this machine ({device.type})", gemm_peak(device, getattr(torch, engine.precision)), memory, share)


def timed_speed(model: PlannedModel, lengths: np.ndarray, engine: Engine, rank: int | None, trained: bool) -> float:
    """Time passes of a model with random weights on this machine, and return their FLOP/s.

    Args:
        lengths: tokens of typical texts, as many as are embedded at once.
        trained: whether a pass is a step: forward, backward and AdamW, of an adapter where there is a `rank`.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = model.untrained_encoder(kind).train(trained)
    if rank is not None:
        add_adapter(encoder, "timed", rank, rank)
    encoder.to(kind).arrange(engine.precision, engine.packing)
    if engine.compile and trained:
        for layer in layers_of(encoder.backbone):
            layer.compile(dynamic=True)
    fitting = lengths[: max(1, int(np.searchsorted(lengths.cumsum(), TIMED_TOKENS[kind])))]
    tokens = Tokens.of([[1] * int(length) for length in fitting])
    optimizer = torch.optim.AdamW(parameter for parameter in encoder.parameters() if parameter.requires_grad)

    def run() -> None:
        if trained:
            encoder(**encoder.batch(tokens)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        else:
            list(encoder.encode_batches(tokens, int(fitting.sum())))
        if kind == "cuda":
            torch.cuda.synchronize()

    run()  # warms up
    ended, best = time.perf_counter() + TIMED_SECONDS, float("inf")
    while best == float("inf") or time.perf_counter() < ended:
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return model.flops(rank, backward=trained).of(fitting) / best
