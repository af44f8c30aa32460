"""The work of embedding texts and of training steps, from the lengths of the texts alone.

Two figures of FLOPs: `flops` are the model's on real tokens; `computed` are all that the device does: padding, the
first of two passes where a batch is larger than a piece, the frozen base beside an adapter, layers computed again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.modeling.flops import Shape, forward_flops, training_flops
from stages.training.batches import token_budget_batches
from stages.training.gradcache import cut


@dataclass(frozen=True)
class Totals:
    """Texts and tokens, and the FLOPs they cost."""

    texts: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    computed: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.texts + other.texts,
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.computed + other.computed,
        )

    def __mul__(self, times: float) -> "Totals":
        return Totals(self.texts * times, self.tokens * times, self.flops * times, self.computed * times)


@dataclass(frozen=True)
class Learner:
    """An encoder that is trained, and how.

    Args:
        rank: of the adapter that is trained; None trains the backbone.
        separable: a large batch goes through piece by piece; otherwise it is embedded twice.
        needs_base: the frozen base embeds each text, too.
        checkpointing: layers are computed again in the backward pass.
    """

    shape: Shape
    narrowed: bool
    packing: bool
    rank: int | None
    separable: bool
    needs_base: bool
    checkpointing: bool


def embedding(
    shape: Shape, lengths: np.ndarray, batch_tokens: int, *, narrowed: bool, packing: bool, rank: int | None = None
) -> Totals:
    """Embedding texts of some lengths once, sorted into batches."""
    if len(lengths) == 0:
        return Totals()
    carried = np.concatenate(
        [_carried(lengths[rows], packing) for rows in token_budget_batches(lengths.tolist(), batch_tokens)]
    )
    return Totals(
        len(lengths),
        float(lengths.sum()),
        forward_flops(shape, lengths, narrowed=narrowed, rank=rank),
        forward_flops(shape, carried, narrowed=narrowed, rank=rank),
    )


def training_step(learner: Learner, lengths: np.ndarray, micro_batch_tokens: int, processes: int) -> Totals:
    """One step on the texts of a batch, over all processes."""
    shape, narrowed, rank = learner.shape, learner.narrowed, learner.rank
    pieces = cut(lengths.tolist(), micro_batch_tokens, processes)
    carried = np.concatenate([_carried(lengths[piece], learner.packing) for piece in pieces])
    forward = forward_flops(shape, carried, narrowed=narrowed, rank=rank)
    computed = training_flops(shape, carried, narrowed=narrowed, rank=rank)
    if len(pieces) > processes and not learner.separable:
        computed += forward
    if learner.needs_base:
        computed += forward_flops(shape, carried, narrowed=narrowed, rank=None)
    if learner.checkpointing:
        computed += forward
    model = training_flops(shape, lengths, narrowed=narrowed, rank=rank)
    return Totals(len(lengths), float(lengths.sum()), model, computed)


def training(
    learner: Learner, batches: Iterable[Sequence[int] | np.ndarray], micro_batch_tokens: int, processes: int, steps: int
) -> Totals:
    """`steps` steps like the sampled ones: token counts of each batch's texts."""
    sampled = [training_step(learner, np.asarray(batch), micro_batch_tokens, processes) for batch in batches]
    total = sum(sampled, Totals())
    return total * (steps / len(sampled))


def _carried(lengths: np.ndarray, packing: bool) -> np.ndarray:
    """Tokens that each text of a batch takes: its own, or the longest one's."""
    return lengths if packing else np.full_like(lengths, lengths.max())
