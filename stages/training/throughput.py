"""The speed of a step: tokens a second, share of padding, and share of the machine's measured peak (MFU)."""

import time
from dataclasses import dataclass

import torch

from stages.training.gradcache import StepBatch

# Large enough to reach the peak, small enough for a fraction of a second on a CPU.
GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
GEMM_REPEATS = 5
# The peak is measured again after this many steps, because other processes may have used the machine the first time.
PEAK_EVERY = 25


def gemm_peak(device: torch.device, precision: torch.dtype) -> float:
    """Measure the FLOP/s of a square matrix product, the best of several; MFU is a share of it."""
    size = GEMM_SIZE[device.type]
    own = torch.Generator(device).manual_seed(0)  # leaves the random numbers of training as they are
    left, right = (torch.randn(size, size, device=device, dtype=precision, generator=own) for _ in range(2))
    best = float("inf")
    for _ in range(GEMM_REPEATS + 1):  # the first product warms up
        started = _now(device)
        left @ right
        best = min(best, _now(device) - started)
    return 2 * size**3 / best


@dataclass
class ThroughputMeter:
    """Measures the steps of a process and gives the figures of all processes.

    Args:
        precision: type of the matrix products whose peak the step is compared with.
        processes: number of processes that share the work.
    """

    device: torch.device
    precision: torch.dtype
    processes: int
    peak: float = 0.0  # FLOP/s of the device, the best seen so far
    _steps: int = 0
    _started: float = 0.0

    def start(self) -> None:
        """Begin to measure a step."""
        if self._steps % PEAK_EVERY == 0:
            self._measure_peak()
        self._steps += 1
        self._started = _now(self.device)

    def stop(self, batch: StepBatch, flops: float) -> dict[str, float]:
        """Return the figures of the step since `start`; `flops` are those of the whole batch, over all processes."""
        seconds = _now(self.device) - self._started
        if flops / seconds > self.peak * self.processes:  # a share above 1: the machine was busy at the measurement
            self._measure_peak()
        embedded = sum(part.tensors["input_ids"].numel() for part in batch.micro_batches)
        tokens = int(sum(batch.lengths[part.positions].sum() for part in batch.micro_batches))
        return {
            "tokens_per_second": float(batch.lengths.sum()) / seconds,
            "mfu": flops / seconds / (self.peak * self.processes),
            "padding_share": 1 - tokens / embedded,
        }

    def _measure_peak(self) -> None:
        self.peak = max(self.peak, gemm_peak(self.device, self.precision))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
