from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.modeling.tokens import Tokens
from stages.objectives.objective import Objective
from tests.ablations.joint import JointObjective

NO_MODEL: Any = nn.Identity()


class Named(Objective):
    """Answers with its name and what it was asked."""

    def __init__(self, name: str) -> None:
        super().__init__(NO_MODEL)
        self.name = name
        self.scale = nn.Parameter(torch.tensor(2.0))

    def texts(self, rows: np.ndarray) -> Tokens:
        return Tokens.of([[len(self.name), row] for row in rows.tolist()])

    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None) -> dict[str, Tensor]:
        assert base is not None
        return {self.name: self.scale * embeddings.sum() + float(rows.sum())}


@pytest.fixture
def joint() -> JointObjective:
    return JointObjective(NO_MODEL, [Named("a"), Named("bb"), Named("ccc")], [4, 3, 5])


def test_rows_go_to_the_objective_they_belong_to_by_its_own_numbers(joint: JointObjective) -> None:
    for rows, expected in (([3, 0], [[1, 3], [1, 0]]), ([4, 6], [[2, 0], [2, 2]]), ([7, 11], [[3, 0], [3, 4]])):
        assert [ids.tolist() for ids in joint.texts(np.array(rows))] == expected
    ones = torch.ones(2, 3)
    terms = joint(np.array([4, 6]), ones, ones)
    assert terms.keys() == {"bb"}
    assert terms["bb"].item() == 2 * 6 + 2


def test_a_batch_of_several_objectives_is_refused(joint: JointObjective) -> None:
    with pytest.raises(AssertionError, match="rows of one objective"):
        joint.texts(np.array([3, 4]))


def test_what_any_objective_learns_is_trained(joint: JointObjective) -> None:
    assert {name for name, _ in joint.named_parameters()} == {f"objectives.{at}.scale" for at in range(3)}
