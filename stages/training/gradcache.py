"""A batch in pieces: the texts of a step sorted by length, cut by tokens, shared over processes, and their gradients.

A batch that is one piece on each process is embedded once. A larger one goes through twice (GradCache, arXiv
2101.06983): embedded without a graph, the loss's gradient taken at the embeddings, then piece by piece again with it.
Memory is that of a piece however large the batch, and the gradients are the plain ones. A separable objective needs no
second pass.

Shapes: B rows, M texts, D student dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.modeling.adapters import without_adapter
from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from stages.training.batches import token_budget_batches
from stages.training.distributed import Processes

Collate = Callable[[Tokens], dict[str, Tensor]]


@dataclass(frozen=True)
class Piece:
    """Some texts of a batch by number, and their tensors."""

    places: np.ndarray
    batch: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """A step's rows, with what this process embeds of them."""

    rows: np.ndarray
    lengths: np.ndarray  # [M] tokens of each text, over all processes
    pieces: list[Piece]
    places: list[np.ndarray]  # of all pieces, process by process: the order in which gathered embeddings come

    @property
    def counts(self) -> list[int]:
        """Texts of each process."""
        return [len(places) for places in self.places]


def cut(lengths: np.ndarray, micro_batch_tokens: int, processes: int) -> list[np.ndarray]:
    """Text numbers of each piece, in a number that `processes` divides: process i takes pieces[i::processes].

    Raises:
        ValueError: there are fewer texts than processes.
    """
    if len(lengths) < processes:
        raise ValueError(f"a batch of {len(lengths)} texts cannot be shared by {processes} processes; raise batch_size")
    pieces = list(token_budget_batches(lengths, micro_batch_tokens))
    while len(pieces) % processes and any(len(piece) > 1 for piece in pieces):
        divisible = [at for at, piece in enumerate(pieces) if len(piece) > 1]
        largest = max(divisible, key=lambda at: int(lengths[pieces[at]].sum()))
        pieces[largest : largest + 1] = np.array_split(pieces[largest], 2)
    if rest := len(pieces) % processes:  # of single texts: the shortest go together
        pieces[-rest - 1 :] = [np.concatenate(pieces[-rest - 1 :])]
    # Every other round backwards, so that the first process does not get the longest of each.
    rounds = [pieces[at : at + processes] for at in range(0, len(pieces), processes)]
    return [piece for number, one in enumerate(rounds) for piece in (one[::-1] if number % 2 else one)]


def prepare(
    objective: Objective, rows: np.ndarray, micro_batch_tokens: int, processes: Processes, collate: Collate
) -> Batch:
    """Cut a step's texts and make the tensors of this process's pieces; touches no model, so a thread can do it."""
    texts = objective.texts(rows)
    lengths = texts.lengths
    pieces = cut(lengths, micro_batch_tokens, processes.count)
    places = [np.concatenate(pieces[rank :: processes.count]) for rank in range(processes.count)]
    mine = [Piece(piece, collate(texts.select(piece))) for piece in pieces[processes.rank :: processes.count]]
    return Batch(rows, lengths, mine, places)


def backward(objective: Objective, batch: Batch, processes: Processes) -> dict[str, Tensor]:
    """Accumulate the gradients of a batch's loss in this process's parameters, summed over the processes.

    Returns:
        The loss terms of the whole batch, detached, the same on every process.
    """
    terms = _separable(objective, batch, processes) if objective.separable else _joint(objective, batch, processes)
    in_encoder = {id(parameter) for parameter in objective.encoder.parameters()}
    # A joint loss is computed whole on every process: what is not the encoder has its whole gradient already.
    processes.sum_gradients(
        parameter for parameter in objective.parameters() if objective.separable or id(parameter) in in_encoder
    )
    return terms


def _separable(objective: Objective, batch: Batch, processes: Processes) -> dict[str, Tensor]:
    """Piece by piece, each piece's mean weighted by its share of the rows."""
    total: dict[str, Tensor] = {}
    for piece in batch.pieces:
        terms = objective(batch.rows[piece.places], _embed(objective.encoder, piece), None)
        weighted = {name: term * (len(piece.places) / len(batch.rows)) for name, term in terms.items()}
        _total(weighted).backward()
        total = {name: total.get(name, 0.0) + term.detach() for name, term in weighted.items()}
    return {name: processes.sum(term) for name, term in total.items()}


def _joint(objective: Objective, batch: Batch, processes: Processes) -> dict[str, Tensor]:
    """The loss of all embeddings at once."""
    encoder, cached = objective.encoder, len(batch.pieces) > 1
    with torch.set_grad_enabled(not cached):
        local = torch.cat([_embed(encoder, piece) for piece in batch.pieces])
    local.requires_grad_(cached or local.requires_grad)
    terms = objective(batch.rows, _ordered(local, batch, processes), _base(objective, batch, processes))
    _total(terms).backward()
    if cached:
        assert local.grad is not None, "no loss term reads the embeddings"
        sizes = [len(piece.places) for piece in batch.pieces]
        for piece, gradient in zip(batch.pieces, local.grad.split(sizes), strict=True):
            _embed(encoder, piece).backward(gradient)
    return {name: term.detach() for name, term in terms.items()}


def _base(objective: Objective, batch: Batch, processes: Processes) -> Tensor | None:
    if not objective.needs_base:
        return None
    with torch.no_grad(), without_adapter(objective.encoder):
        local = torch.cat([_embed(objective.encoder, piece) for piece in batch.pieces])
    return _ordered(local, batch, processes)


def _embed(encoder: Encoder, piece: Piece) -> Tensor:
    device = encoder.device
    embeddings: Tensor = encoder(**{name: tensor.to(device, non_blocking=True) for name, tensor in piece.batch.items()})
    return embeddings


def _ordered(local: Tensor, batch: Batch, processes: Processes) -> Tensor:
    """Embeddings [M, D] of all texts in the objective's order, from this process's [m, D]."""
    order = np.argsort(np.concatenate(batch.places))
    return processes.gather(local, batch.counts)[torch.as_tensor(order, device=local.device)]


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
