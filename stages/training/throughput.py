"""How fast a step went: tokens a second, padding, and the share of the machine's measured peak (MFU)."""

import time
from dataclasses import dataclass

import torch

from stages.training.gradcache import Batch

# Large enough to reach the peak, small enough for a fraction of a second on a CPU.
GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
GEMM_REPEATS = 5
# Steps after which the peak is measured again: other processes may have had the machine the first time. A share above 1
# shows that they had.
PEAK_EVERY = 25


def gemm_peak(device: torch.device, precision: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of some: what MFU is a share of."""
    size = GEMM_SIZE[device.type]
    own = torch.Generator(device).manual_seed(0)  # training's random numbers stay as they are
    left, right = (torch.randn(size, size, device=device, dtype=precision, generator=own) for _ in range(2))
    best = float("inf")
    for _ in range(GEMM_REPEATS + 1):  # the first one warms up
        started = _now(device)
        left @ right
        best = min(best, _now(device) - started)
    return 2 * size**3 / best


@dataclass
class Meter:
    """Measures steps of one process and gives the figures of all.

    Args:
        precision: of the matrix products that the step is held against.
        processes: how many share the work.
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

    def stop(self, batch: Batch, flops: float) -> dict[str, float]:
        """Figures of a step since `start`; `flops` are those of the whole batch, over all processes."""
        seconds = _now(self.device) - self._started
        if flops / seconds > self.peak * self.processes:
            self._measure_peak()
        carried = sum(piece.batch["input_ids"].numel() for piece in batch.pieces)
        own = int(sum(batch.lengths[piece.places].sum() for piece in batch.pieces))
        return {
            "tokens_per_second": float(batch.lengths.sum()) / seconds,
            "mfu": flops / seconds / (self.peak * self.processes),
            "padding_share": 1 - own / carried,
        }

    def _measure_peak(self) -> None:
        self.peak = max(self.peak, gemm_peak(self.device, self.precision))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
