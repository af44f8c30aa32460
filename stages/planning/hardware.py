"""What work runs on: peak FLOP/s, memory, and the share of the peak that is counted on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil
import torch

from stages.training.throughput import gemm_peak

# Assumed shares of the peak, over all that is computed (padding and second passes too).
# CPU: a 6-layer teacher and a 2-layer student's step reach 0.80 of the product measured beside them; a stage does other
# things, too. GPU: compiled, packed steps of nano and small reach 0.38 of the sheet's (tests/benchmarks/README.md).
CPU_UTILISATION = 0.7
GPU_UTILISATION = 0.35
# Measured on 2 cores with AVX-512, float32; bfloat16 without AMX reaches half.
CPU_PEAK_OF_THREAD = {"float32": 87.5e9, "bfloat16": 44e9}


@dataclass(frozen=True)
class Hardware:
    """One device of a process."""

    name: str
    peak: Mapping[str, float]  # FLOP/s by precision
    memory: float  # bytes
    utilisation: float
    source: str


# Dense figures: the data sheets print twice as much for sparse matrices. float32 without TF32, as PyTorch has it.
GPUS = {
    "h100": Hardware(
        "H100 SXM 80 GB",
        {"float32": 67e12, "bfloat16": 989e12},
        80e9,
        GPU_UTILISATION,
        "NVIDIA H100 Tensor Core GPU data sheet",
    ),
    "a100": Hardware(
        "A100 SXM 80 GB",
        {"float32": 19.5e12, "bfloat16": 312e12},
        80e9,
        GPU_UTILISATION,
        "NVIDIA A100 Tensor Core GPU data sheet",
    ),
    "l4": Hardware(
        "L4 24 GB",
        {"float32": 30.3e12, "bfloat16": 121e12},
        24e9,
        GPU_UTILISATION,
        "NVIDIA L4 Tensor Core GPU data sheet",
    ),
}


def hardware(name: str, precision: str, threads: int, utilisation: float | None) -> Hardware:
    """A device of the table, or `here`: this machine's, its peak measured in a second.

    Args:
        precision: of the forward pass.
        threads: of a process, where it computes on the CPU.
        utilisation: share of the peak to count on; None for the assumption above.
    """
    device = _device(name, precision, threads)
    return device if utilisation is None else replace(device, utilisation=utilisation)


def _device(name: str, precision: str, threads: int) -> Hardware:
    if name in GPUS:
        return GPUS[name]
    memory = float(psutil.virtual_memory().total)
    if name == "cpu":
        peak = {kind: each * threads for kind, each in CPU_PEAK_OF_THREAD.items()}
        source = "matrix products measured on AVX-512 cores of 2.8 GHz; the memory is this machine's"
        return Hardware(f"CPU, {threads} threads", peak, memory, CPU_UTILISATION, source)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    peak = {precision: gemm_peak(device, getattr(torch, precision))}
    source = "a matrix product measured just now"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return Hardware(properties.name, peak, float(properties.total_memory), GPU_UTILISATION, source)
    return Hardware(f"this CPU, {threads} threads", peak, memory, CPU_UTILISATION, source)
