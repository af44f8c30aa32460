"""The measurements run, on tiny shapes: their figures are there, and both sides do the same work."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import EuroBertConfig, EuroBertModel

from stages.training import throughput as meter
from tests.benchmarks import contrastive, distillation, embedding, engine, formats, gpu, store
from tests.benchmarks.bench import line
from tests.benchmarks.increment import embed_increment
from tests.benchmarks.measure import Figure, in_turns, middle, most_resident, spread
from tests.benchmarks.students import eurobert, rotary
from tests.benchmarks.texts import pairs

TINY = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def few() -> list[tuple[str, str]]:
    return pairs(48)


@pytest.fixture(autouse=True)
def fewer_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (distillation, embedding, gpu):
        monkeypatch.setattr(module, "PEER_BATCH_SIZES", (8, 16))
    monkeypatch.setattr(contrastive, "PEER_MINI_BATCH_SIZES", (8, 16))


def test_texts_are_distinct_always_the_same_and_of_every_length(few: list[tuple[str, str]]) -> None:
    assert pairs(48) == few
    assert len({text for pair in few for text in pair}) == 96
    words = sorted(len(text.split()) for pair in few for text in pair)
    assert words[0] <= 3 and words[-1] > 60


def test_turns_are_taken_and_the_peak_is_measured_before_each() -> None:
    calls: list[str] = []

    def work(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    found = in_turns({"ours": lambda: work("ours"), "peer": lambda: work("peer")}, rounds=3)
    assert calls == ["ours", "peer"] * 3
    assert found["ours"] == [1.0, 3.0, 5.0] and found["peer"] == [2.0, 4.0, 6.0]
    assert len(found["peak"]) == 6 and min(found["peak"]) > 1e8
    assert middle([4.0, 1.0, 2.0]) == 2.0
    assert spread([4.0, 1.0, 2.0]) == 1.5


def test_the_most_memory_is_seen_while_it_is_held() -> None:
    this = psutil.Process()
    before = this.memory_info().rss

    def work() -> None:
        held = np.ones(20_000_000)
        time.sleep(0.2)
        del held

    assert most_resident(work, lambda: [this], every=0.01) > before + 150_000_000


@pytest.mark.slow
def test_embedding_gives_the_peers_vectors(few: list[tuple[str, str]]) -> None:
    texts = [query for query, _ in few]
    figures, vectors = embedding.embedding_speed(texts, rounds=1)
    assert vectors.shape == (48, 384)
    assert figures["embed_cosine_min"].value >= 0.99999
    assert figures["embed_ratio"].value == figures["embed_ratio"].ratio > 0
    assert 0 < figures["embed_mfu"].value < 2


@pytest.mark.slow
def test_each_format_gives_torchs_vectors(few: list[tuple[str, str]]) -> None:
    figures = formats.format_speed(lambda: eurobert(**TINY), [query for query, _ in few], rounds=1)
    assert figures["onnx_min_cosine"].value >= 0.99999
    assert figures["int8_mean_cosine"].value >= 0.99 and figures["onnx_int8_mean_cosine"].value >= 0.99
    assert figures["int8_throughput_ratio"].value == figures["int8_throughput_ratio"].ratio > 0
    assert figures["int8_throughput_ratio"].target == ">= 1.6"


@pytest.mark.slow
@pytest.mark.parametrize("build", [lambda: eurobert(**TINY), lambda: rotary(layers=(0,))], ids=["eurobert", "rotary"])
def test_a_distillation_step_is_the_peers(few: list[tuple[str, str]], build: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(96, 24)).astype(np.float32)
    figures = distillation.distillation_speed("step", build, few, vectors, rounds=1)
    assert figures["step_loss_apart"].value < 1e-5
    assert figures["step_gradients_apart"].value < 1e-4
    assert figures["step_tokens_per_second"].value > 0
    assert 0 <= figures["step_padding"].value < 0.8
    assert 0 < figures["step_peer_padding"].value < 0.8


def test_a_contrastive_step_is_the_peers(few: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = engine.recipe()
    small = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"micro_batch_tokens": 256})})
    monkeypatch.setattr(contrastive, "recipe", lambda: small)  # several pieces
    figures = contrastive.contrastive_speed(lambda: eurobert(**TINY), few, rounds=1, trial_rows=16)
    assert figures["contrastive_step_loss_apart"].value < 1e-5
    assert figures["contrastive_step_gradients_apart"].value < 1e-4
    assert figures["contrastive_step_ratio"].value > 0


@pytest.mark.slow
def test_gpu_measurements_run_without_a_gpu(few: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do, not how fast: on a CPU, one tiny student."""

    monkeypatch.setitem(meter.GEMM_SIZE, "cpu", 64)  # bfloat16 is slow here

    def tiny() -> EuroBertModel:
        return EuroBertModel(EuroBertConfig(**TINY, vocab_size=30_522, num_hidden_layers=2, pad_token_id=0))

    ways = {"step": {"compile": False, "shortest": 4}}
    figures = gpu.gpu_speed(
        [query for query, _ in few], torch.device("cpu"), {"tiny": tiny}, ways, rounds=1,
        tokens=16, batch_size=4, steps=3, micro_batch_tokens=64,
    )  # fmt: skip
    assert figures.keys() == {
        "gpu_tiny_step_tokens_per_second",
        "gpu_tiny_step_mfu",
        "gpu_tiny_embed_tokens_per_second",
        "gpu_tiny_embed_ratio",
    }
    assert all(figure.value > 0 for figure in figures.values())


def test_full_size_shapes_are_those_of_the_paper() -> None:
    """212 M and 596 M parameters with the paper's count; built without weights."""
    with torch.device("meta"):
        sizes = {name: sum(one.numel() for one in build().parameters()) for name, build in gpu.STUDENTS.items()}
    assert sizes["nano"] == pytest.approx(212e6, rel=0.01)
    assert sizes["small"] == pytest.approx(596e6, rel=0.01)


def test_a_line_of_the_table() -> None:
    figure = Figure(1.4321, "batch 16", "peer", 1.4321, ">= 1.4")
    assert " ".join(line("embed_ratio", figure).split()) == "embed_ratio 1.432 batch 16 >= 1.4 1.43 x peer"
    assert line("seconds", Figure(3.0, "s")).split() == ["seconds", "3", "s"]


def test_steps_are_timed_after_the_first(few: list[tuple[str, str]], tmp_path: Path) -> None:
    encoder = eurobert(**TINY)
    texts = [query for query, _ in few]
    data = distillation._texts(encoder, few, np.ones((96, 8), dtype=np.float32))
    objective = distillation.DistillationObjective(encoder, torch.nn.Linear(32, 8), [32], data)
    batches = [np.arange(4), np.arange(4, 8), np.arange(8, 12)]
    timed = engine.timed_steps(objective, batches, warm_steps=1)
    expected = [encoder.tokenize(texts[start : start + 4], "query").lengths.tolist() for start in (4, 8)]
    assert [lengths.tolist() for lengths in timed.lengths] == expected
    assert timed.tokens == sum(map(sum, expected))
    assert timed.rate == timed.tokens / timed.seconds > 0


def test_the_store_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 1000, "DIMENSIONS": 8, "SHARD_ROWS": 300, "ASKED": 50}.items():
        monkeypatch.setattr(store, name, value)
    figures = store.store_scale()
    assert figures["store_open_seconds"].value > 0 and figures["store_lookup_rows"].value > 0


@pytest.mark.slow
def test_more_texts_are_measured(few: list[tuple[str, str]]) -> None:
    figures = embed_increment(few)
    assert figures["embed_increment_embedded"].value == pytest.approx(1 / 48)
    assert 0 <= figures["embed_increment_share"].value < 1
