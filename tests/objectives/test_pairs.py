"""Ablations of stage 1 that compare the pairs of a batch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from stages.losses.contrastive import info_nce
from stages.losses.distillation import score_distillation
from stages.modeling.tokens import Tokens
from stages.objectives.pairs import ContrastiveObjective, PairObjective, ScoreDistillationObjective
from stages.objectives.training_texts import TrainingTexts

NO_MODEL: Any = nn.Identity()  # an objective takes embeddings; the encoder is the loop's
DIMS = (3, 8)
ROWS = np.array([4, 0, 5])


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


QUERIES = TrainingTexts(Tokens.of([[row] for row in range(6)]), draw(1, 6, 12).half())
DOCUMENTS = TrainingTexts(Tokens.of([[10 + row, 20] for row in range(6)]), draw(2, 6, 12).half())


def objective(kind: type[PairObjective]) -> PairObjective:
    return kind(NO_MODEL, DIMS, (QUERIES, DOCUMENTS), temperature=0.1)


def test_texts_are_the_queries_then_their_documents() -> None:
    texts = objective(ContrastiveObjective).texts(ROWS)
    assert [ids.tolist() for ids in texts] == [[4], [0], [5], [14, 20], [10, 20], [15, 20]]


def test_contrast_is_the_mean_over_prefixes_of_in_batch_info_nce() -> None:
    embeddings = normalize(draw(3, 6, 8), dim=-1).requires_grad_()
    terms = objective(ContrastiveObjective)(ROWS, embeddings, None)
    queries, documents = embeddings[:3], embeddings[3:]
    expected = sum(info_nce(queries[:, :dim], documents[:, :dim], None, 0.1) for dim in DIMS) / len(DIMS)
    assert set(terms) == {"info_nce"}
    torch.testing.assert_close(terms["info_nce"], expected)
    assert torch.autograd.grad(terms["info_nce"], embeddings)[0].abs().min() > 0  # every text of the batch is read


def test_score_distillation_follows_the_teachers_scores_of_the_same_rows() -> None:
    embeddings = normalize(draw(3, 6, 8), dim=-1).requires_grad_()
    terms = objective(ScoreDistillationObjective)(ROWS, embeddings, None)
    assert QUERIES.teacher is not None
    assert DOCUMENTS.teacher is not None
    teachers = QUERIES.teacher[ROWS].float(), DOCUMENTS.teacher[ROWS].float()
    expected = sum(score_distillation(embeddings[:3, :dim], embeddings[3:, :dim], *teachers, 0.1) for dim in DIMS) / 2
    assert set(terms) == {"score_distillation"}
    torch.testing.assert_close(terms["score_distillation"], expected)
    assert torch.autograd.grad(terms["score_distillation"], embeddings)[0].abs().min() > 0


def test_a_student_with_the_teachers_scores_has_nothing_to_learn() -> None:
    texts = TrainingTexts([[0]] * 6, normalize(draw(1, 6, 8), dim=-1).half())
    perfect = ScoreDistillationObjective(NO_MODEL, [8], (texts, texts), temperature=0.1)
    assert texts.teacher is not None
    embeddings = texts.teacher[np.concatenate([ROWS, ROWS])].float()
    assert perfect(ROWS, embeddings, None)["score_distillation"].item() == pytest.approx(0, abs=1e-9)
    exchanged = torch.cat([embeddings[:3], embeddings[3:].roll(1, 0)])  # every query beside another's document
    assert perfect(ROWS, exchanged, None)["score_distillation"].item() > 0.1


def test_pairs_of_a_batch_belong_together() -> None:
    """A row alone has no loss, so the loop must not take the loss micro-batch by micro-batch."""
    assert not ContrastiveObjective.separable
    assert not ScoreDistillationObjective.separable
