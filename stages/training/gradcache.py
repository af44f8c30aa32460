"""Micro-batches: a step's texts sorted by length, split by tokens and shared over processes, and their gradients.

A batch that is a single micro-batch on each process is embedded once. A larger batch goes through twice (GradCache,
arXiv 2101.06983): embedded without a graph, to take the loss's gradient at the embeddings; then micro-batch by
micro-batch with a graph, to carry that gradient on. Memory is that of a micro-batch however large the batch is, and the
gradients are those of the whole batch. A separable objective needs no second pass.

Shapes: B rows, M texts, D student dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.modeling.adapters import without_adapter
from stages.modeling.encoder import Encoder
from stages.modeling.token_batches import token_budget_batches
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.training.distributed import TrainingProcesses

Collate = Callable[[Tokens], dict[str, Tensor]]


@dataclass(frozen=True)
class MicroBatch:
    """Texts that are embedded at once: their positions in the batch, and the tensors that the encoder takes."""

    positions: np.ndarray
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class StepBatch:
    """A step's rows, with the micro-batches that this process embeds."""

    rows: np.ndarray
    lengths: np.ndarray  # [M] tokens of each text, over all processes
    micro_batches: list[MicroBatch]
    positions: list[np.ndarray]  # of each process's texts, in the order in which gathered embeddings come

    @property
    def counts(self) -> list[int]:
        """Number of texts of each process."""
        return [len(positions) for positions in self.positions]


def split_positions(lengths: np.ndarray, micro_batch_tokens: int, processes: int) -> list[np.ndarray]:
    """Split texts [M] into micro-batches whose number `processes` divides: process i takes every [i::processes].

    Raises:
        ValueError: there are fewer texts than processes.
    """
    if len(lengths) < processes:
        raise ValueError(f"a batch of {len(lengths)} texts cannot be shared by {processes} processes; raise batch_size")
    parts = list(token_budget_batches(lengths, micro_batch_tokens))
    while len(parts) % processes and any(len(part) > 1 for part in parts):
        divisible = [at for at, part in enumerate(parts) if len(part) > 1]
        largest = max(divisible, key=lambda at: int(lengths[parts[at]].sum()))
        parts[largest : largest + 1] = np.array_split(parts[largest], 2)
    if rest := len(parts) % processes:  # all are single texts: the shortest go together
        parts[-rest - 1 :] = [np.concatenate(parts[-rest - 1 :])]
    # Every other round is reversed, so that the first process does not get the longest texts of each round.
    rounds = [parts[at : at + processes] for at in range(0, len(parts), processes)]
    return [part for number, turn in enumerate(rounds) for part in (turn[::-1] if number % 2 else turn)]


def prepare(
    objective: Objective, rows: np.ndarray, micro_batch_tokens: int, processes: TrainingProcesses, collate: Collate
) -> StepBatch:
    """Split a step's texts and make the tensors of this process; touches no model, so any thread may call it."""
    texts = objective.texts(rows)
    lengths = texts.lengths
    parts = split_positions(lengths, micro_batch_tokens, processes.count)
    positions = [np.concatenate(parts[rank :: processes.count]) for rank in range(processes.count)]
    own = [MicroBatch(part, collate(texts.select(part))) for part in parts[processes.rank :: processes.count]]
    return StepBatch(rows, lengths, own, positions)


def backward(objective: Objective, batch: StepBatch, processes: TrainingProcesses) -> dict[str, Tensor]:
    """Accumulate the gradients of a batch's loss in this process's parameters, summed over the processes.

    Returns:
        The loss terms of the whole batch, detached, the same on every process.
    """
    take = _separable_backward if objective.separable else _joint_backward
    terms = take(objective, batch, processes)
    in_encoder = {id(parameter) for parameter in objective.encoder.parameters()}
    # Every process computes the whole of a joint loss, so parameters outside the encoder have their whole gradient.
    processes.sum_gradients(
        parameter for parameter in objective.parameters() if objective.separable or id(parameter) in in_encoder
    )
    return terms


def _separable_backward(objective: Objective, batch: StepBatch, processes: TrainingProcesses) -> dict[str, Tensor]:
    """Go micro-batch by micro-batch; the mean of each is weighted by its share of the rows."""
    total: dict[str, Tensor] = {}
    for part in batch.micro_batches:
        terms = objective(batch.rows[part.positions], _embed(objective.encoder, part), None)
        weighted = {name: term * (len(part.positions) / len(batch.rows)) for name, term in terms.items()}
        _total(weighted).backward()
        total = {name: total.get(name, 0.0) + term.detach() for name, term in weighted.items()}
    return {name: processes.sum(term) for name, term in total.items()}


def _joint_backward(objective: Objective, batch: StepBatch, processes: TrainingProcesses) -> dict[str, Tensor]:
    """Take the loss of all embeddings at once, in one pass or two."""
    encoder, cached = objective.encoder, len(batch.micro_batches) > 1
    with torch.set_grad_enabled(not cached):
        local = torch.cat([_embed(encoder, part) for part in batch.micro_batches])
    local.requires_grad_(cached or local.requires_grad)
    terms = objective(batch.rows, _in_order(local, batch, processes), _base_embeddings(objective, batch, processes))
    _total(terms).backward()
    if cached:
        assert local.grad is not None, "no loss term reads the embeddings"
        sizes = [len(part.positions) for part in batch.micro_batches]
        for part, gradient in zip(batch.micro_batches, local.grad.split(sizes), strict=True):
            _embed(encoder, part).backward(gradient)
    return {name: term.detach() for name, term in terms.items()}


def _base_embeddings(objective: Objective, batch: StepBatch, processes: TrainingProcesses) -> Tensor | None:
    if not objective.needs_base:
        return None
    with torch.no_grad(), without_adapter(objective.encoder):
        local = torch.cat([_embed(objective.encoder, part) for part in batch.micro_batches])
    return _in_order(local, batch, processes)


def _embed(encoder: Encoder, part: MicroBatch) -> Tensor:
    device = encoder.device
    embeddings: Tensor = encoder(
        **{name: tensor.to(device, non_blocking=True) for name, tensor in part.tensors.items()}
    )
    return embeddings


def _in_order(local: Tensor, batch: StepBatch, processes: TrainingProcesses) -> Tensor:
    """Bring the embeddings [M, D] of all texts into the objective's order, from this process's [m, D]."""
    order = np.argsort(np.concatenate(batch.positions))
    return processes.gather(local, batch.counts)[torch.as_tensor(order, device=local.device)]


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
