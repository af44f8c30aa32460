"""What every measurement here uses: figures, clocks in turns, the machine's peak."""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil
import torch

from stages.training.throughput import gemm_peak


@dataclass(frozen=True)
class Figure:
    """A measured value; `ratio` is to the named peer in the same run, above 1 where ours is better."""

    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None
    target: str | None = None


def use_all_cores() -> int:
    """Have torch use as many threads as there are cores; returns how many."""
    torch.set_num_threads(os.cpu_count() or 1)
    return torch.get_num_threads()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each work returns, round by round: a machine that slows down slows them all.

    The peak matrix product, FLOP/s of all threads, is measured before each and stands under `peak`.
    """
    found: dict[str, list[float]] = {name: [] for name in (*works, "peak")}
    for _ in range(rounds):
        for name, work in works.items():
            found["peak"].append(gemm_peak(torch.device("cpu"), torch.float32))
            found[name].append(work())
    return found


def middle(values: list[float]) -> float:
    """The median, of an even number the mean of the middle two."""
    return statistics.median(values)


def spread(values: list[float]) -> float:
    """How far the values lie apart, as a share of their median: 0 on a quiet machine."""
    return (max(values) - min(values)) / middle(values)


def most_resident(work: Callable[[], object], processes: Callable[[], Iterable[psutil.Process]], every: float) -> int:
    """The most memory, bytes, that some processes hold together while `work` runs, looked at every so many seconds."""
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(every):
            most = max(most, _resident(processes()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return most


def _resident(processes: Iterable[psutil.Process]) -> int:
    total = 0
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended between being listed and being read
            total += one.memory_info().rss
    return total
