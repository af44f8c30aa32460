"""Speed of a step: shares of padding and of the peak, by hand."""

import numpy as np
import pytest
import torch

from stages.training import throughput
from stages.training.gradcache import MicroBatch, StepBatch
from stages.training.throughput import ThroughputMeter, gemm_peak


def test_figures_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two processes carries texts of 3 and 1 tokens padded to 3; all of them together hold 9 tokens, in 2 s."""
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(throughput, "gemm_peak", lambda *_: 50.0)
    meter = ThroughputMeter(torch.device("cpu"), torch.float32, processes=2)
    meter.start()
    own = MicroBatch(np.array([0, 2]), {"input_ids": torch.zeros(2, 3, dtype=torch.long)})
    batch = StepBatch(np.array([7, 8, 9]), np.array([3, 5, 1]), [own], [np.array([0, 2]), np.array([1])])
    figures = meter.stop(batch, flops=60.0)
    assert figures["tokens_per_second"] == pytest.approx(9 / 2)
    assert figures["mfu"] == pytest.approx(60 / 2 / (50 * 2))
    assert figures["padding_share"] == pytest.approx(1 - 4 / 6)


def test_the_peak_is_the_best_seen_and_draws_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was busy at the first step, and again later."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    gemm_peak(torch.device("cpu"), torch.float32)
    assert torch.rand(1) == expected
    peaks = iter([10.0, 50.0, 20.0])
    monkeypatch.setattr(throughput, "gemm_peak", lambda *_: next(peaks))
    meter = ThroughputMeter(torch.device("cpu"), torch.float32, processes=1)
    found = []
    for _ in range(3):
        for _ in range(throughput.PEAK_EVERY):
            meter.start()
        found.append(meter.peak)
    assert found == [10.0, 50.0, 50.0]


def test_a_share_above_one_has_the_peak_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was busy when the peak was measured, and not any more while the step ran."""
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    peaks = iter([20.0, 40.0])
    monkeypatch.setattr(throughput, "gemm_peak", lambda *_: next(peaks))
    meter = ThroughputMeter(torch.device("cpu"), torch.float32, processes=1)
    meter.start()
    own = MicroBatch(np.array([0]), {"input_ids": torch.zeros(1, 3, dtype=torch.long)})
    figures = meter.stop(StepBatch(np.array([7]), np.array([3]), [own], [np.array([0])]), flops=60.0)
    assert figures["mfu"] == pytest.approx(60 / 2 / 40)


def test_the_peak_is_that_of_a_matrix_product() -> None:
    """Within what a CPU of any kind reaches: over 0.1 GFLOP/s and under 100 TFLOP/s."""
    assert 1e8 < gemm_peak(torch.device("cpu"), torch.float32) < 1e14
