"""Batches in threads: in order, one thread each, and nothing left changed behind them."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.threaded_inference import map_in_threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_run_at_once_in_threads_of_their_own_and_results_keep_their_order() -> None:
    meeting = threading.Barrier(2)

    def work(item: int) -> tuple[int, int]:
        meeting.wait(timeout=10)  # passes only if two are at work
        time.sleep(0.01 * (4 - item))
        return item, torch.get_num_threads()

    assert list(map_in_threads(work, range(4))) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_are_given_back_after_an_error_and_what_waits_is_dropped() -> None:
    done = []

    def work(item: int) -> None:
        if item == 1:
            raise ValueError("item 1")
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(ValueError, match="item 1"):
        list(map_in_threads(work, range(50)))
    assert len(done) < 10
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_reader_that_stops_early_leaves_nothing_running() -> None:
    begun, ended = [], []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.02)
        ended.append(item)
        return item

    results = map_in_threads(work, range(50))
    assert next(results) == 0
    assert torch.get_num_threads() == 1
    results.close()
    assert torch.get_num_threads() == 2
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 10, "no more than a few are begun before their turn, so that few results are held"


@pytest.mark.usefixtures("two_threads")
def test_threads_stay_for_the_next_batches() -> None:
    def work(_item: int) -> str:
        time.sleep(0.01)
        return threading.current_thread().name

    first, second = set(map_in_threads(work, range(8))), set(map_in_threads(work, range(8)))
    assert first == second and len(first) == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("architecture", "pooling"), [("bert", "mean"), ("eurobert", "last"), ("qwen3", "last"), ("modernbert", "mean")]
)
@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
def test_an_encoder_gives_the_same_to_the_last_bit(
    backbones: dict[str, Path], sentences: list[str], architecture: str, pooling: str, packs: bool
) -> None:
    encoder = load_encoder(str(backbones[architecture]), EncoderSettings(pooling, {"document": ""}, 32))
    encoder.arrange("float32", packs)
    together = encoder.encode(sentences, "document", batch_tokens=128)
    torch.set_num_threads(1)
    np.testing.assert_array_equal(encoder.encode(sentences, "document", batch_tokens=64), together)
    plain = encoder.encode(sentences, "document", batch_tokens=4096)
    np.testing.assert_allclose(together, plain, atol=1e-5)
    assert np.abs(plain[0] - plain[1]).max() > 1e-3
