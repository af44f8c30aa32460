"""Speed of a step: shares of padding and of the peak, by hand."""

import numpy as np
import pytest
import torch

from stages.training import meter
from stages.training.meter import Meter, gemm_peak
from stages.training.pieces import Batch, Piece


def test_figures_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two processes carries texts of 3 and 1 tokens padded to 3; all of them together hold 9 tokens, in 2 s."""
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    measured = Meter(torch.device("cpu"), peak=50.0, processes=2)
    measured.start()
    piece = Piece(np.array([0, 2]), {"input_ids": torch.zeros(2, 3, dtype=torch.long)})
    batch = Batch(np.array([7, 8, 9]), np.array([3, 5, 1]), [piece], [np.array([0, 2]), np.array([1])])
    figures = measured.stop(batch, flops=60.0)
    assert figures["tokens_per_second"] == pytest.approx(9 / 2)
    assert figures["mfu"] == pytest.approx(60 / 2 / (50 * 2))
    assert figures["padding_share"] == pytest.approx(1 - 4 / 6)


def test_the_peak_is_that_of_a_matrix_product() -> None:
    """Within what a CPU of any kind reaches: over 0.1 GFLOP/s and under 100 TFLOP/s."""
    assert 1e8 < gemm_peak(torch.device("cpu"), torch.float32) < 1e14
