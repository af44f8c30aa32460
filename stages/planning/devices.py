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
from stages.planning.phases import Phase, Read
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
# Most tokens of a batch that is timed (a CPU is as fast with few), and seconds in which batches are repeated.
TIMED_TOKENS, TIMED_SECONDS = {"cpu": 2048, "cuda": 65_536}, 0.5


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


def timed_speed(model: PlannedModel, phase: Phase, engine: Engine) -> float:
    """Time typical batches of a phase on this machine, with random weights, and return the FLOP/s of the whole phase.

    A batch of a phase that trains is a step: forward, backward and AdamW.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    trained = phase.objective is not None
    encoder = model.untrained_encoder(kind).train(trained)
    if phase.rank is not None:
        add_adapter(encoder, "timed", phase.rank, phase.rank)
    encoder.to(kind).arrange(engine.precision, engine.packing)
    if engine.compile and trained:
        for layer in layers_of(encoder.backbone):
            layer.compile(dynamic=True)
    optimizer = torch.optim.AdamW(parameter for parameter in encoder.parameters() if parameter.requires_grad)

    def run(batches: list[Tokens], batch_tokens: int) -> None:
        for tokens in batches if trained else []:
            encoder(**encoder.batch(tokens)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        if not trained:
            list(encoder.encode_batches(Tokens.joined(batches), batch_tokens))
        if kind == "cuda":
            torch.cuda.synchronize()

    flops, work, seconds = model.flops(phase.rank, backward=trained), 0.0, 0.0
    # Texts that are only embedded are sorted into batches together; steps draw from each group by itself.
    every = np.concatenate([read.lengths.ravel() for read in phase.reads])
    for read in phase.reads if trained else [Read(1.0, every, phase.batch_tokens)]:
        at_once = min(int(read.batch_tokens), engine.micro_batch_tokens, TIMED_TOKENS[kind])
        lengths = typical_batches(read.lengths, at_once)
        batches = [Tokens.of([[1] * int(length) for length in batch]) for batch in lengths]
        run(batches[:1], at_once)  # warms up
        ended, best = time.perf_counter() + TIMED_SECONDS, float("inf")
        while best == float("inf") or time.perf_counter() < ended:
            started = time.perf_counter()
            run(batches, at_once)
            best = min(best, time.perf_counter() - started)
        of_read = read.times * flops.of(read.lengths.ravel())
        work, seconds = work + of_read, seconds + of_read / flops.of(np.concatenate(lengths)) * best
    return work / seconds


def typical_batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Choose a batch each of short, of middling and of long rows [N] or [N, M]: batches hold rows of like length."""
    rows = lengths.reshape(len(lengths), -1)
    ordered = rows[np.argsort(rows.sum(axis=1))]
    size = max(1, round(tokens / float(rows.sum(axis=1).mean())))
    starts = [int(share * max(0, len(rows) - size)) for share in (1 / 6, 1 / 2, 5 / 6)]
    return [ordered[start : start + size].ravel() for start in starts]
