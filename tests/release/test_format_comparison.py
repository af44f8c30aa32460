"""Figures of parity against hand-computed cases, and the reasons given for a format that differs."""

import numpy as np
import pytest

from stages.release.format_comparison import (
    FormatOutput,
    agreement,
    cosine,
    disagreements,
    similarity_spearman,
    top1_agreement,
)

LIMITS = {"cosine_min": 0.99, "cosine_mean": 0.99, "top1": 1.0, "spearman": 0.99}
REFERENCE = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=np.float32)
SETTINGS = {"pooling": "last", "padding_side": "right"}


def format_output(vectors: np.ndarray, **changes: object) -> FormatOutput:
    settings = {**SETTINGS, **{name: value for name, value in changes.items() if name in SETTINGS}}
    token_ids = changes.get("token_ids", [[2, 5, 3], [2, 3], [2, 6, 3]])
    return FormatOutput(token_ids, vectors, settings=settings)  # type: ignore[arg-type]


def test_cosine_by_hand() -> None:
    np.testing.assert_allclose(cosine(REFERENCE, 2 * REFERENCE[[1, 1, 0]]), [0.8, 1.0, 0.0], atol=1e-7)


def test_top1_by_hand() -> None:
    # Similarities: 0-1 0.8, 1-2 0.6, 0-2 0. Nearest: 0 -> 1, 1 -> 0, 2 -> 1.
    assert top1_agreement(REFERENCE, REFERENCE) == 1
    turned = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])  # 1 is nearer to 2 now
    assert top1_agreement(REFERENCE, turned) == pytest.approx(2 / 3)
    same = np.array([[1.0, 0.0], [0.8, 0.6], [1.0, 1e-8]])  # of two equally near texts either will do
    assert top1_agreement(same, np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]])) == pytest.approx(2 / 3)
    assert top1_agreement(same[[0, 2, 0]], same[[0, 2, 2]]) == 1


def test_ranks_by_hand() -> None:
    assert similarity_spearman(REFERENCE, REFERENCE) == pytest.approx(1)
    # Pairs (0-1, 0-2, 1-2) rank 3, 1, 2 for the reference and 2, 1, 3 here: 1 - 6 * 2 / (3 * 8) = 0.5.
    assert similarity_spearman(REFERENCE, np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])) == pytest.approx(0.5)


def test_texts_that_differ_by_rounding_are_a_tie() -> None:
    angles = np.array([0.0, 0.5, 1.0, 1.0 + 1e-7])
    turned = np.array([0.0, 0.5, 1.0 + 1e-7, 1.0])
    one, other = (np.stack([np.cos(side), np.sin(side)], axis=1) for side in (angles, turned))
    assert similarity_spearman(one, other) == pytest.approx(1)


def test_padding_is_compared_with_the_same_text_alone() -> None:
    padded = {"right": REFERENCE[[0, 2]], "left": np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)}
    found = agreement(REFERENCE, FormatOutput([], REFERENCE, padded), batch=[0, 2])
    assert found["padding_cosine_min"] == pytest.approx(0.8)


def test_a_nan_of_one_side_of_the_padding_is_no_agreement() -> None:
    sides = {"right": REFERENCE[:2], "left": np.full_like(REFERENCE[:2], np.nan)}
    found = agreement(REFERENCE, FormatOutput([], REFERENCE, sides), batch=[0, 1])
    assert disagreements(format_output(REFERENCE), format_output(REFERENCE), found, LIMITS) == [
        "padding_cosine_min is nan, at least 0.99 is asked for"
    ]
    assert (found["cosine_min"], found["top1"]) == (pytest.approx(1), 1)


def test_a_format_that_agrees_has_no_fault() -> None:
    same = format_output(REFERENCE)
    assert disagreements(same, same, agreement(REFERENCE, same, [0]), LIMITS) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (format_output(REFERENCE, pooling="mean"), "pooling is 'mean', expected 'last'"),
        (format_output(REFERENCE, padding_side="left"), "padding_side is 'left', expected 'right'"),
        (
            format_output(REFERENCE, token_ids=[[2, 5, 3], [2], [2, 6]]),
            "2 of 3 texts have other tokens; text 1 ends with [2] of 1, expected [2, 3] of 2",
        ),
        (format_output(REFERENCE * [1, -1]), "cosine_min is -1.000000, at least 0.99 is asked for"),
        (format_output(REFERENCE * np.nan), "cosine_mean is nan, at least 0.99 is asked for"),
    ],
)
def test_a_difference_is_named(output: FormatOutput, message: str) -> None:
    assert message in disagreements(format_output(REFERENCE), output, agreement(REFERENCE, output, [0]), LIMITS)
