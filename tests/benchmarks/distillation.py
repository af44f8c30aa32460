"""A distillation step of our engine beside one of Sentence Transformers' trainer: same student, texts and targets."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.distillation import DistillationObjective
from stages.objectives.training_texts import TrainingTexts
from stages.training.batches import shuffled_token_batches
from tests.benchmarks.engine import LEARNING_RATE, WARM_STEPS, recipe, timed_steps
from tests.benchmarks.measure import Figure, in_turns, middle
from tests.benchmarks.students import PROMPTS, as_peer, gradients_apart

PEER = "SentenceTransformerTrainer"
PEER_BATCH_SIZES = (16, 32, 64)


class PeerLoss(nn.Module):
    """The same loss as our objective's, as one writes it for Sentence Transformers."""

    def __init__(self, model: SentenceTransformer, projection: nn.Linear, dims: Sequence[int]) -> None:
        super().__init__()
        self.model, self.projection, self.dims = model, projection, tuple(dims)
        self.tokens: list[tuple[int, int]] = []  # of each batch: real, and with padding

    def forward(self, features: Any, labels: Tensor) -> Tensor:
        """Mean cosine distance to the teacher through each prefix of the projection."""
        (inputs,) = features
        mask = inputs["attention_mask"]
        self.tokens.append((int(mask.sum()), mask.numel()))
        embeddings = self.model(inputs)["sentence_embedding"]
        distances = [
            1 - nn.functional.cosine_similarity(self._project(embeddings, dim), labels, dim=-1).mean()
            for dim in self.dims
        ]
        return torch.stack(distances).mean()

    def _project(self, embeddings: Tensor, dim: int) -> Tensor:
        return nn.functional.linear(embeddings[:, :dim], self.projection.weight[:, :dim], self.projection.bias)


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_step_end(self, *_arguments: Any, **_others: Any) -> None:
        """Note the time."""
        self.stamps.append(time.perf_counter())


def grouped_by_length(lengths: list[int]) -> type[DefaultBatchSampler]:
    """The trainer's batch sampler over transformers' length-grouping one, which sorts groups of texts by their tokens.

    Its groups are of 50 batches, as they are over any large data set; few texts would give it small ones, and padding.
    """

    class Grouped(LengthGroupedSampler):
        def __iter__(self) -> Iterator[int]:
            return iter(get_length_grouped_indices(self.lengths, self.batch_size, 50, self.generator))

    class ByLength(DefaultBatchSampler):
        def __init__(self, dataset: Any, batch_size: int, drop_last: bool, **_others: Any) -> None:
            sampler = Grouped(batch_size, lengths=lengths, generator=torch.Generator().manual_seed(17))
            super().__init__(sampler, batch_size=batch_size, drop_last=drop_last)

    return ByLength


def distillation_speed(
    name: str,
    build: Callable[[], Encoder],
    pairs: Sequence[tuple[str, str]],
    vectors: np.ndarray,
    rounds: int,
) -> dict[str, Figure]:
    """Figures under `name`.

    Args:
        vectors: the teacher's, of the pairs' queries, then of their documents.
    """
    encoder = build()
    dims = [dim for dim in recipe().distill.matryoshka_dims if dim <= encoder.dimensions]
    projection = nn.Linear(encoder.dimensions, vectors.shape[1])
    data = _texts(encoder, pairs, vectors)
    objective = DistillationObjective(encoder, projection, dims, data)
    with tempfile.TemporaryDirectory() as folder:
        peer = as_peer(encoder, Path(folder))
        loss = PeerLoss(peer, nn.Linear(*projection.weight.shape[::-1]), dims)
    loss.projection.load_state_dict(projection.state_dict())
    peer_texts = [PROMPTS[side] + pair[at] for at, side in enumerate(PROMPTS) for pair in pairs]
    budget = recipe().distill.training.batch_tokens or 1024
    batches = shuffled_token_batches(data.lengths, budget, seed=17, epoch=0)
    gradients, losses = _first_step(objective, loss, peer_texts, batches[0])

    def run_ours() -> float:
        return timed_steps(objective, [*batches[:WARM_STEPS], *batches]).rate

    def run_peer(batch_size: int) -> float:
        return _peer_rate(loss, peer_texts, data, batch_size)

    batch_size = max(PEER_BATCH_SIZES, key=run_peer)
    found = in_turns({"ours": run_ours, "peer": lambda: run_peer(batch_size)}, rounds)
    timed = timed_steps(objective, [*batches[:WARM_STEPS], *batches])
    flops_a_token = sum(map(encoder.training_flops, timed.lengths)) / timed.tokens
    ratio = middle(found["ours"]) / middle(found["peer"])
    real, carried = np.sum(loss.tokens[-len(batches) :], axis=0)
    return {
        f"{name}_tokens_per_second": Figure(middle(found["ours"]), "tokens/s"),
        f"{name}_ratio": Figure(ratio, f"batch {batch_size}", PEER, ratio, ">= 1.7"),
        f"{name}_mfu": Figure(flops_a_token * middle(found["ours"]) / middle(found["peak"]), "", target=">= 0.65"),
        f"{name}_padding": Figure(timed.padding_share, "of the tokens"),
        f"{name}_peer_padding": Figure(1 - float(real / carried), "of the tokens"),
        f"{name}_loss_apart": Figure(losses, "", target="< 1e-5"),
        f"{name}_gradients_apart": Figure(gradients, "", target="< 1e-4"),
    }


def _texts(encoder: Encoder, pairs: Sequence[tuple[str, str]], vectors: np.ndarray) -> TrainingTexts:
    sides = [encoder.tokenize([pair[at] for pair in pairs], side) for at, side in enumerate(PROMPTS)]
    return TrainingTexts(Tokens.joined(sides), torch.from_numpy(vectors.astype(np.float16)))


def _first_step(
    objective: DistillationObjective, loss: PeerLoss, peer_texts: Sequence[str], rows: np.ndarray
) -> tuple[float, float]:
    """How far gradients and loss of both sides are apart on the same rows, before anything was trained."""
    encoder, peer = objective.encoder, loss.model
    (term,) = objective(rows, encoder(**encoder.batch(objective.texts(rows))), None).values()
    term.backward()
    features = peer.preprocess([peer_texts[row] for row in rows])
    expected = loss([features], objective.data.targets(rows, encoder.device))
    expected.backward()
    apart = gradients_apart(encoder, peer), abs(float(term - expected)) / float(expected)
    for module in (objective, loss):
        module.zero_grad()
    loss.tokens.clear()
    return apart


def _peer_rate(loss: PeerLoss, texts: Sequence[str], data: TrainingTexts, batch_size: int) -> float:
    """Tokens a second of the trainer's steps over all texts, after the first few."""
    assert data.teacher is not None
    table = datasets.Dataset.from_dict({"sentence": list(texts), "label": data.teacher.float().numpy()})
    clock, before = Clock(), len(loss.tokens)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            per_device_train_batch_size=batch_size,
            max_steps=WARM_STEPS + len(texts) // batch_size,
            learning_rate=LEARNING_RATE,
            max_grad_norm=1.0,
            batch_sampler=grouped_by_length(data.lengths.tolist()),
            dataloader_drop_last=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        SentenceTransformerTrainer(
            loss.model, arguments, table.with_format("torch"), loss=loss, callbacks=[clock]
        ).train()
    tokens = sum(real for real, _ in loss.tokens[before + WARM_STEPS :])
    return tokens / (clock.stamps[-1] - clock.stamps[WARM_STEPS - 1])
