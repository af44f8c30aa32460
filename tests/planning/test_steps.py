"""Work by hand: a shape of round numbers, a handful of texts."""

import dataclasses

import numpy as np
import pytest

from stages.modeling.flops import Maps, Shape, forward_flops, training_flops
from stages.planning.steps import Learner, Totals, embedding, training, training_step

# One layer, 4 wide; 100 multiply-adds a token in its maps, none of which can be narrowed.
SHAPE = Shape(1, 4, 4, Maps(100, 12, 12), Maps(48, 4, 12), Maps(0, 0, 0), 140, 40)
LEARNER = Learner(
    SHAPE, narrowed=False, packing=False, rank=None, separable=True, needs_base=False, checkpointing=False
)


def forward(*lengths: int) -> float:
    """2 for a multiply-add: the maps of each token, and 4 coordinates of each pair of tokens twice."""
    return sum(2 * (100 * length + 2 * 4 * length**2) for length in lengths)


def test_padding_is_computed_but_is_no_work() -> None:
    lengths = np.array([3, 1, 2])
    # Longest first in batches of 6 tokens: 3 and 2 padded to 3, then 1.
    assert embedding(SHAPE, lengths, 6, narrowed=False, packing=False) == Totals(
        3, 6, forward(3, 1, 2), forward(3, 3, 1)
    )
    packed = embedding(SHAPE, lengths, 6, narrowed=False, packing=True)
    assert packed.computed == packed.flops == forward(3, 1, 2)
    assert embedding(SHAPE, lengths[:0], 6, narrowed=False, packing=False) == Totals()


def test_a_step_of_one_piece_is_three_forward_passes() -> None:
    step = training_step(LEARNER, np.array([3, 2]), micro_batch_tokens=6, processes=1)
    assert step == Totals(2, 5, 3 * forward(3, 2), 3 * forward(3, 3))


@pytest.mark.parametrize(
    ("changed", "extra"),
    [
        ({"separable": True}, 0),
        ({"separable": False}, forward(3, 3, 1)),  # embedded for the loss, then again for the gradients
        ({"needs_base": True}, forward(3, 3, 1)),
        ({"checkpointing": True}, forward(3, 3, 1)),
        ({"separable": False, "needs_base": True, "checkpointing": True}, 3 * forward(3, 3, 1)),
    ],
)
def test_what_a_step_of_two_pieces_computes_beside_it(changed: dict[str, bool], extra: float) -> None:
    learner = dataclasses.replace(LEARNER, **changed)
    step = training_step(learner, np.array([3, 1, 2]), micro_batch_tokens=6, processes=1)
    assert step.flops == 3 * forward(3, 1, 2), "the model's own work stays"
    assert step.computed == 3 * forward(3, 3, 1) + extra


def test_two_processes_have_a_piece_each_and_embed_once() -> None:
    learner = dataclasses.replace(LEARNER, separable=False)
    step = training_step(learner, np.array([3, 1, 2]), micro_batch_tokens=6, processes=2)
    assert step.computed == 3 * forward(3, 3, 1)


def test_an_adapter_runs_beside_the_base() -> None:
    learner = dataclasses.replace(LEARNER, rank=2, needs_base=True, packing=True)
    lengths = np.array([3, 1])
    step = training_step(learner, lengths, micro_batch_tokens=6, processes=1)
    assert step.flops == training_flops(SHAPE, lengths, narrowed=False, rank=2)
    assert step.computed == step.flops + forward(3, 1)
    assert forward_flops(SHAPE, lengths, narrowed=False, rank=2) == forward(3, 1) + 2 * 4 * 2 * (12 + 12)


def test_all_steps_are_like_the_sampled_ones() -> None:
    total = training(LEARNER, [np.array([2, 2]), np.array([4, 4])], micro_batch_tokens=100, processes=1, steps=10)
    assert total == Totals(20, 60, 3 * 5 * forward(2, 2, 4, 4), 3 * 5 * forward(2, 2, 4, 4))
