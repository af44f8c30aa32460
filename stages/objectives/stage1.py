"""The objective of stage 1, as `distill.objective` and `distill.projection` choose it.

Shapes: n sampled texts, D student dimension, T teacher dimension.
"""

import numpy as np
import torch
from torch import nn

from stages.modeling.encoder import Encoder
from stages.modeling.warm_start import nearest_rotation
from stages.objectives.distillation import DistillationObjective, TeacherSideDistillationObjective
from stages.objectives.objective import Objective
from stages.objectives.pairs import ContrastiveObjective, ScoreDistillationObjective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.distill import Distill


def stage1_objective(
    settings: Distill,
    encoder: Encoder,
    psi: nn.Linear,
    texts: TrainingTexts,
    start: tuple[np.ndarray, np.ndarray],
) -> Objective:
    """Make the objective that `distill.objective` and `distill.projection` name.

    A projection on the teacher's side starts as the rotation of the teacher's space that brings the vectors of some
    texts nearest to the embeddings of the untrained student: it keeps what the teacher tells apart.

    Args:
        start: teacher's vectors [n, T] and untrained student's embeddings [n, D] of the sampled texts.

    Raises:
        ValueError: the student has more dimensions than the teacher, so nothing is projected down.
    """
    dims, is_trained = settings.matryoshka_dims, settings.projection.trained
    if settings.objective != "embedding_distillation":
        kind = ScoreDistillationObjective if settings.objective == "score_distillation" else ContrastiveObjective
        return kind(encoder, dims, texts.halves(), settings.temperature)
    if settings.projection.side == "student":
        return DistillationObjective(encoder, psi.requires_grad_(is_trained), dims, texts)
    if psi.in_features > psi.out_features:
        raise ValueError(
            f"distill.projection.side: teacher projects {psi.out_features} dimensions down, the student has "
            f"{psi.in_features}; use side: student"
        )
    down = nn.Linear(psi.out_features, psi.in_features)
    with torch.no_grad():
        down.weight.copy_(torch.from_numpy(nearest_rotation(*start).T))
        down.bias.zero_()
    return TeacherSideDistillationObjective(encoder, down.requires_grad_(is_trained), dims, texts)
