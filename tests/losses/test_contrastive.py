import math
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from stages.losses.contrastive import false_negatives, info_nce

Shape = tuple[int, ...]

ANCHORS, POSITIVES, NEGATIVES = (4, 8), (4, 8), (4, 3, 8)
UNUSED: Any = None  # the model and the labels, where embeddings are passed


def draw(*shapes: Shape) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.requires_grad_() for tensor in tensors]


def test_info_nce_by_hand() -> None:
    anchors = torch.tensor([[2.0, 0, 0], [0, 3, 0]], dtype=torch.float64)
    positives = torch.tensor([[3.0, 4, 0], [0, 1, 0]], dtype=torch.float64)
    negatives = torch.tensor([[[0, 0, 5.0]], [[4, 3, 0]]], dtype=torch.float64)
    # As unit vectors: (.6, .8, 0), (0, 1, 0); (0, 0, 1), (.8, .6, 0).
    # Cosines of the anchors with positive 1, positive 2, negative of 1, negative of 2; divided by 0.5.
    first = [2 * cosine for cosine in (0.6, 0.0, 0.0, 0.8)]
    second = [2 * cosine for cosine in (0.8, 1.0, 0.0, 0.6)]
    expected = -(
        math.log(math.exp(first[0]) / sum(map(math.exp, first)))
        + math.log(math.exp(second[1]) / sum(map(math.exp, second)))
    )
    assert info_nce(anchors, positives, negatives, 0.5).item() == pytest.approx(expected / 2, abs=1e-12)


def test_info_nce_excluded_by_hand() -> None:
    anchors = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    positives = torch.tensor([[1.0, 0], [0.6, 0.8]], dtype=torch.float64)
    excluded = torch.tensor([[False, True], [False, False]])
    expected = 0 + math.log(1 + math.exp(0 - 0.8))  # the first anchor is left with its positive alone
    loss = info_nce(anchors, positives, None, 1.0, excluded)
    assert loss.item() == pytest.approx(expected / 2, abs=1e-12)


def test_info_nce_equals_sentence_transformers() -> None:
    anchors, positives, negatives = tensors = draw(ANCHORS, POSITIVES, NEGATIVES)
    theirs = MultipleNegativesRankingLoss(UNUSED, scale=1 / 0.05)
    expected = theirs.compute_loss_from_embeddings([anchors, positives, *negatives.unbind(1)], UNUSED)
    loss = info_nce(anchors, positives, negatives, 0.05)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(loss, tensors)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, tensors), rtol=0, atol=1e-10)


def test_info_nce_both_directions_equal_sentence_transformers() -> None:
    anchors, positives = draw(ANCHORS, POSITIVES)
    theirs = MultipleNegativesRankingLoss(
        UNUSED, 1 / 0.02, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    expected = theirs.compute_loss_from_embeddings([anchors, positives], UNUSED)
    loss = info_nce(anchors, positives, None, 0.02) + info_nce(positives, anchors, None, 0.02)
    # Eq. (7) adds the two directions, Sentence Transformers averages them: twice as much.
    torch.testing.assert_close(loss, 2 * expected, rtol=0, atol=1e-10)


def test_info_nce_ignores_lengths() -> None:
    anchors, positives, negatives = draw(ANCHORS, POSITIVES, NEGATIVES)
    loss = info_nce(anchors, positives, negatives, 0.02)
    torch.testing.assert_close(info_nce(3 * anchors, positives / 7, 100 * negatives, 0.02), loss)


def test_info_nce_temperature_learns() -> None:
    anchors, positives, negatives = draw(ANCHORS, POSITIVES, NEGATIVES)
    temperature = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: info_nce(anchors, positives, negatives, t), (temperature,))
    (gradient,) = torch.autograd.grad(info_nce(anchors, positives, negatives, temperature), temperature)
    assert gradient != 0


def test_info_nce_excluded_get_no_gradient() -> None:
    anchors, positives, negatives = draw(ANCHORS, POSITIVES, NEGATIVES)
    excluded = torch.zeros(4, 4 + 4 * 3, dtype=torch.bool)
    excluded[:, 4 + 3 * 1 + 2] = True  # for all anchors, the last negative of the second
    (gradient,) = torch.autograd.grad(info_nce(anchors, positives, negatives, 0.05, excluded), negatives)
    is_zero = (gradient == 0).all(dim=-1)
    assert gradient.isfinite().all()
    assert is_zero.nonzero().tolist() == [[1, 2]]


def test_info_nce_without_exclusions_is_unmasked() -> None:
    anchors, positives, negatives = draw(ANCHORS, POSITIVES, NEGATIVES)
    loss = info_nce(anchors, positives, negatives, 0.05, torch.zeros(4, 16, dtype=torch.bool))
    assert torch.equal(loss, info_nce(anchors, positives, negatives, 0.05))


def test_info_nce_survives_small_temperatures() -> None:
    anchors, positives, negatives = (tensor.float() for tensor in draw(ANCHORS, POSITIVES, NEGATIVES))
    assert info_nce(anchors, positives, negatives, 1e-3).isfinite()  # exp(1000) overflows float32


def test_info_nce_keeps_own_positive() -> None:
    anchors, positives = draw(ANCHORS, POSITIVES)
    with pytest.raises(AssertionError, match="own positive"):
        info_nce(anchors, positives, None, 0.05, torch.eye(4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("positives", "negatives", "excluded", "message"),
    [
        ((5, 8), None, None, r"got positives of shape \[5, 8\].*expected the same"),
        (POSITIVES, (12, 7), None, r"got negatives of shape \[12, 7\], expected .* with D = 8"),
        (POSITIVES, (3, 3, 8), None, r"got negatives of shape \[3, 3, 8\], expected \[4, N, D\]"),
        (POSITIVES, NEGATIVES, (4, 4), r"got excluded of shape \[4, 4\], expected \[4, 16\]"),
    ],
)
def test_info_nce_refuses_shapes(
    positives: Shape, negatives: Shape | None, excluded: Shape | None, message: str
) -> None:
    hard = None if negatives is None else torch.ones(negatives)
    mask = None if excluded is None else torch.zeros(excluded, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        info_nce(torch.ones(ANCHORS), torch.ones(positives), hard, 0.05, mask)


def test_false_negatives_are_what_a_teacher_finds_nearer_than_the_margin() -> None:
    """Anchors at 0 and 90 degrees, positives at 20 and 70, a hard negative each at 25 and 100."""

    def at(*degrees: float) -> Tensor:
        radians = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([radians.cos(), radians.sin()], dim=-1)

    anchors, positives, negatives = at(0, 90), 3 * at(20, 70), at(25, 100)[:, None]
    # Cosines of anchor 0: 0.940 (its own), 0.342, 0.906, -0.174; of anchor 1: 0.342, 0.940 (its own), 0.423, 0.985.
    assert false_negatives(anchors, positives, negatives, 0.0).tolist() == [[False] * 4, [False, False, False, True]]
    wide = false_negatives(anchors, positives, negatives, 0.05)
    assert wide.tolist() == [[False, False, True, False], [False, False, False, True]]
    assert false_negatives(anchors, positives, None, 0.7).tolist() == [[False, True], [True, False]]


def test_a_false_negative_that_is_left_out_gets_no_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, positives = (torch.randn(3, 4, generator=generator, requires_grad=True) for _ in range(2))
    negatives = torch.randn(3, 2, 4, generator=generator, requires_grad=True)
    excluded = torch.zeros(3, 9, dtype=torch.bool)
    excluded[:, 5] = True  # anchor 1's first hard negative is one for everybody
    info_nce(anchors, positives, negatives, 0.1, excluded).backward()
    gradient = negatives.grad
    assert gradient is not None
    assert gradient[1, 0].abs().max() == 0
    assert gradient[1, 1].abs().max() > 0 and gradient[0].abs().max() > 0
