"""Micro-batches: however a batch is split, the loss and the gradients are those of the whole batch."""

from collections.abc import Callable, Sequence
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.modeling.adapters import add_adapter
from stages.modeling.encoder import Encoder, EncoderSettings, load_encoder
from stages.objectives.classification import ClassificationObjective
from stages.objectives.distillation import DistillationObjective
from stages.objectives.objective import Objective
from stages.objectives.retrieval import RetrievalObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.checkpoints import CheckpointFile
from stages.training.distributed import TrainingProcesses
from stages.training.gradcache import backward, prepare, split_positions
from stages.training.loop import TrainingPhase, train
from tests import sections

DIMS, TEACHER, ROWS = (8, 32), 12, np.array([3, 0, 5, 9, 11, 7])
PROMPTS = {"query": "query : ", "document": ""}

Make = Callable[[str], Objective]


def side(encoder: Encoder, texts: Sequence[str], name: str, seed: int) -> TrainingTexts:
    teacher = np.random.default_rng(seed).normal(size=(len(texts), TEACHER)).astype(np.float16)
    return TrainingTexts.of(encoder, texts, name, 24, teacher)


@pytest.fixture
def make(backbones: dict[str, Path], sentences: list[str]) -> Make:
    """Objectives of each shape: joint with a loss parameter, joint that reads the base, separable with a projection."""

    def make(name: str) -> Objective:
        torch.manual_seed(4)
        encoder = load_encoder(str(backbones["eurobert"]), EncoderSettings("last", PROMPTS, 24))
        projection = nn.Linear(32, TEACHER)
        if name == "distillation":
            return DistillationObjective(encoder, projection, DIMS, side(encoder, sentences[:12], "query", 1))
        add_adapter(encoder, "task", 4, 4)
        with torch.no_grad():
            for key, value in encoder.named_parameters():
                if "lora_B" in key:
                    value.normal_(std=0.2)
        if name == "classification":
            texts = TrainingTexts.of(encoder, sentences[:12], "document", 24)
            settings = sections.classification(num_negatives=3)
            return ClassificationObjective(encoder, DIMS, settings, texts, [*"aaabbbcccddd"], seed=7)
        queries, documents = side(encoder, sentences[:12], "query", 1), side(encoder, sentences[20:32], "document", 2)
        negatives = np.stack([(np.arange(12) + 5) % 12, (np.arange(12) + 7) % 12], axis=1)
        return RetrievalObjective(encoder, projection, DIMS, sections.retrieval(), (queries, documents), negatives)

    return make


def gradients(objective: Objective, micro_batch_tokens: int) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Loss terms, gradients by parameter, number of micro-batches; in float64, so that rounding hides nothing."""
    objective.double().train()
    objective.zero_grad()
    processes = TrainingProcesses(1)
    batch = prepare(objective, ROWS, micro_batch_tokens, processes, objective.encoder.collate)
    terms = backward(objective, batch, processes)
    found = {name: one.grad.clone() for name, one in objective.named_parameters() if one.grad is not None}
    return terms, found, len(batch.micro_batches)


def apart(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Length of the difference of two gradients of everything that learns, as a share of their length."""
    assert left.keys() == right.keys()
    one, other = (torch.cat([side[key].flatten() for key in right]) for side in (left, right))
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["retrieval", "classification", "distillation"])
@pytest.mark.parametrize("packing", [False, True])
def test_micro_batches_have_the_gradients_of_the_whole_batch(make: Make, name: str, packing: bool) -> None:
    """Adapter and Matryoshka included; the cached gradients differ from the plain ones by rounding."""
    objective = make(name)
    objective.encoder.arrange("float32", packing)
    terms, whole, one = gradients(objective, 100_000)
    assert one == 1
    assert {key for key, value in objective.named_parameters() if value.requires_grad} == set(whole)
    for micro_batch_tokens, at_least in ((40, 3), (1, 6)):
        split_terms, split, number = gradients(objective, micro_batch_tokens)
        assert number >= at_least
        for key, value in terms.items():
            torch.testing.assert_close(split_terms[key], value, atol=1e-6, rtol=1e-5)
        assert apart(split, whole) < 1e-6


def test_plain_gradients_are_those_of_autograd_alone(make: Make) -> None:
    """Without the engine: the objective's terms summed and differentiated at once."""
    objective = make("retrieval")
    _, engine, _ = gradients(objective, 60)
    objective.zero_grad()
    embeddings = objective.encoder(**objective.encoder.pad(objective.texts(ROWS)))
    sum(objective(ROWS, embeddings, None).values()).backward()
    assert apart(engine, {key: one.grad for key, one in objective.named_parameters() if one.grad is not None}) < 1e-6


def test_a_cached_batch_keeps_no_graph_of_the_whole(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is that of a micro-batch: no forward pass that keeps a graph sees more texts than it has."""
    objective, seen = make("retrieval"), []
    forward = type(objective.encoder).forward

    def watched(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(input_ids.numel())
        return forward(encoder, input_ids, attention_mask)

    monkeypatch.setattr(type(objective.encoder), "forward", watched)
    gradients(objective, 60)
    assert len(seen) > 3
    assert max(seen) <= 60


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("micro_batch_tokens", [1, 20, 64, 10_000])
def test_every_text_is_in_one_micro_batch_and_processes_share_them_evenly(
    processes: int, micro_batch_tokens: int
) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, size=37)
    parts = split_positions(lengths, micro_batch_tokens, processes)
    assert len(parts) % processes == 0
    assert sorted(np.concatenate(parts).tolist()) == list(range(37))
    # Where there are only single texts left, the shortest go together: fewer texts than there are processes.
    over = [part for part in parts if len(part) * max(lengths[i] for i in part) > micro_batch_tokens]
    assert sum(len(part) > 1 for part in over) <= 1
    assert all(len(part) <= processes for part in over)
    if micro_batch_tokens == 10_000:
        assert len(parts) == processes
    shares = [sum(lengths[i] for part in parts[rank::processes] for i in part) for rank in range(processes)]
    assert max(shares) - min(shares) <= 2 * max(sum(lengths[i] for i in part) for part in parts)


def test_fewer_texts_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 2 texts cannot be shared by 3 processes; raise batch_size"):
        split_positions(np.array([5, 5]), 100, 3)


@pytest.mark.slow
def test_compiled_layers_learn_what_they_learn_uncompiled(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, in several micro-batches; for two steps, the second behind an update.

    Traced as always, with PyTorch's own kernels behind it: a C++ compiler would take minutes.
    """
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    losses: dict[bool, list[float]] = {}
    for compiled in (False, True):
        rows = losses[compiled] = []
        phase = TrainingPhase(
            "compiled", make("distillation"), lambda _: [ROWS, np.flip(ROWS).copy()], [], evaluate=dict
        )
        train(
            phase,
            sections.schedule(2, warmup_ratio=0.0),
            sections.engine(micro_batch_tokens=40, packing=True, compile=compiled),
            CheckpointFile(tmp_path / str(compiled)),
            log=lambda row, _step, rows=rows: rows.append(row["loss"]),
        )
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert losses[False][0] != pytest.approx(losses[False][1], rel=1e-4)
