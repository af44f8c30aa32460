"""Costs by hand on a tiny model, memory by use, and the time of real passes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from stages.objectives.classification import ClassificationObjective
from stages.objectives.distillation import DistillationObjective
from stages.objectives.objective import Objective
from stages.objectives.retrieval import RetrievalObjective
from stages.planning import devices
from stages.planning.costs import START_SECONDS, StageCost, device_memory, disk_bytes, stage_cost
from stages.planning.devices import Device, find_device, timed_speed, typical_batches
from stages.planning.models import PlannedModel
from stages.planning.phases import Phase, Read
from stages.recipe.engine import Engine

SLOW = Device("slow", peak=1e9, memory=1e9, share=0.5)
ENGINE = Engine(
    threads=1, processes=1, precision="float32", micro_batch_tokens=64, packing=True,
    gradient_checkpointing=False, compile=False, shard=False,
)  # fmt: skip


@pytest.fixture
def model(backbones: dict[str, Path]) -> PlannedModel:
    config = AutoConfig.from_pretrained(backbones["eurobert"])
    return PlannedModel(str(backbones["eurobert"]), config, None, "mean")


def by_hand(*lengths: int) -> float:
    """FLOPs of a forward pass: 3 layers, 32 wide, of 4 square maps and an MLP of 48, and attention's two products."""
    return sum(2 * 3 * ((4 * 32 * 32 + 3 * 32 * 48) * length + 2 * 32 * length**2) for length in lengths)


def phase(objective: type[Objective] | None, batch_tokens: int = 64, rank: int | None = None) -> Phase:
    """Texts of 20 and 12 tokens, each embedded ten times, and a dev text of 8 that is embedded twice."""
    reads = [Read(10.0, np.array([[20, 12]]), batch_tokens)]
    return Phase("stage", reads, Read(2.0, np.array([8])), objective, rank)


def cost(model: PlannedModel, planned: Phase, processes: int = 1, **changed: Any) -> StageCost:
    return stage_cost(planned, model, False, ENGINE.model_copy(update=changed), SLOW, processes)


def test_embedding_by_hand(model: PlannedModel) -> None:
    found = cost(model, phase(None))
    assert (found.texts, found.tokens) == (22, 336)
    assert found.flops == found.computed == 10 * by_hand(20, 12) + 2 * by_hand(8)
    assert found.seconds == pytest.approx(START_SECONDS + found.computed / 0.5e9)


def test_a_training_step_is_three_forward_passes_that_processes_share(model: PlannedModel) -> None:
    one, two = cost(model, phase(DistillationObjective)), cost(model, phase(DistillationObjective), processes=2)
    steps, evaluation = 30 * by_hand(20, 12), 2 * by_hand(8)
    assert one.flops == one.computed == steps + evaluation
    assert two.computed == steps + 2 * evaluation
    assert two.seconds == pytest.approx(START_SECONDS + (steps / 2 + evaluation) / 0.5e9)
    assert two.device_hours == pytest.approx(2 * two.seconds / 3600)


@pytest.mark.parametrize(
    ("objective", "batch_tokens", "checkpointing", "passes"),
    [
        (DistillationObjective, 65, False, 0),  # a mean over texts: part by part
        (RetrievalObjective, 64, False, 0),
        (RetrievalObjective, 65, False, 1),  # embedded for the loss, then again for the gradients
        (DistillationObjective, 65, True, 1),
        (ClassificationObjective, 64, False, 1),  # the frozen base too
        (ClassificationObjective, 65, True, 3),
    ],
)
def test_what_is_computed_beside_a_step(
    model: PlannedModel, objective: type[Objective], batch_tokens: int, checkpointing: bool, passes: int
) -> None:
    found = cost(model, phase(objective, batch_tokens), gradient_checkpointing=checkpointing)
    assert found.computed - found.flops == pytest.approx(passes * 10 * by_hand(20, 12))


def test_memory_by_use(model: PlannedModel) -> None:
    per_token, per_pass = model.activations("float32")
    activations, weights = per_token * 64 + per_pass, model.parameters

    def memory(planned: Phase, frozen: bool = False, **changed: Any) -> list[float]:
        return list(device_memory(planned, model, ENGINE.model_copy(update=changed), frozen).values())

    whole = phase(DistillationObjective)
    assert memory(whole) == [weights * 4, weights * 4, weights * 8, activations]
    trained = weights - model.token_embeddings
    assert memory(whole, frozen=True) == [weights * 4, trained * 4, trained * 8, activations]
    assert memory(whole, shard=True, processes=4) == [weights, weights, weights * 2, activations]
    adapter = model.trained_parameters(4, True)
    assert memory(phase(RetrievalObjective, rank=4)) == [(weights + adapter) * 4, adapter * 4, adapter * 8, activations]
    again = memory(whole, gradient_checkpointing=True)[-1]  # each layer's input, and one layer
    assert again == 64 * (3 * 32 * 4 + per_token / 3) + per_pass
    assert memory(phase(None, batch_tokens=10)) == [weights * 4, 0, 0, pytest.approx(per_token / 3 * 10 + per_pass)]


def test_disk_by_hand() -> None:
    found = disk_bytes(vectors=10, dimensions=4, parameters=100, trained=[50, 5])
    assert list(found.values()) == [3 * 240 + 2 * 3600 + 660, 10 * (4 * 2 + 16), 100 * (8 * 4 + 4), 55 * 12]


def test_cards_of_the_table_and_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    half = ENGINE.model_copy(update={"precision": "bfloat16"})
    assert find_device("h100", half, None) == Device("H100 SXM 80 GB", 989e12, 80e9, 0.35)
    assert find_device("l4", ENGINE, 0.5).share == 0.5
    monkeypatch.setattr(devices, "gemm_peak", lambda device, precision: 7e9 if precision is torch.float32 else 1.0)
    threads = torch.get_num_threads()
    try:
        here = find_device("here", ENGINE, None)
    finally:
        torch.set_num_threads(threads)
    assert here.peak == 7e9 and here.share is None
    assert here.memory > 2**30


@pytest.mark.parametrize(("objective", "rank"), [(None, None), (DistillationObjective, None), (RetrievalObjective, 4)])
def test_real_batches_are_timed(
    model: PlannedModel, objective: type[Objective] | None, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a thousandth of and twice the peak of a matrix product: these batches are tiny."""
    monkeypatch.setattr(devices, "TIMED_SECONDS", 0.05)
    speed = timed_speed(model, phase(objective, rank=rank), ENGINE)
    peak = devices.gemm_peak(torch.device("cpu"), torch.float32)
    assert peak / 1000 < speed < 2 * peak


def test_typical_batches_hold_rows_of_like_length() -> None:
    rows = np.array([[1, 1], [9, 9], [5, 5], [2, 2], [8, 8], [6, 6]])
    assert [batch.tolist() for batch in typical_batches(rows, 20)] == [[1, 1, 2, 2], [5, 5, 6, 6], [6, 6, 8, 8]]
    assert [batch.tolist() for batch in typical_batches(np.array([3, 4]), 100)] == [[3, 4]] * 3
