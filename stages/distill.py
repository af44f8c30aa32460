"""Distill: stage 1 of the paper, which trains the student to predict the frozen teacher's vectors by a projection.

Writes data/distilled: student/ (backbone, tokenizer, encoder.json), projection.safetensors, continued/ (the student
trained on for `continued_steps`, a baseline), static.safetensors (the closed-form baseline) and curve.csv.

`projection.safetensors` is psi, R^D -> R^T, whatever the objective: stage 2 distils through it. Where stage 1 does not
train psi (`objective: score_distillation` or `info_nce`, `projection.side: teacher`), it is the ridge solution after
training.

Shapes: n sampled texts, D student dimension, T teacher dimension.
"""

if __name__ == "__main__":  # The entry checks the recipe and starts the processes before torch is imported.
    from stages.entry import run_stage

    run_stage("distill", distributed=True)

import shutil
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from stages.modeling.encoder import Encoder, place
from stages.modeling.projection import write_projection
from stages.modeling.student import StaticStart, build_student, fit_static, token_donor
from stages.modeling.tokens import Tokens
from stages.modeling.warm_start import start_projection
from stages.objectives.stage1 import stage1_objective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.distill import Distill
from stages.recipe.paths import CURATED, DISTILLED, EMBEDDED
from stages.recipe.recipe import Recipe
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.main_process import is_main_process
from stages.tracking.runs import SilentRun, StageRun, stage_run
from stages.training.batches import MixturePart, drawn_batches, shuffled_batches, shuffled_token_batches
from stages.training.checkpoints import CheckpointFile, checkpoint_file, run_key
from stages.training.curves import write_curve
from stages.training.dev import retrieval_on_dev
from stages.training.loop import TrainingPhase, train
from stages.training.stage1_texts import Stage1Column, check_columns, stage1_columns
from stages.training.state import Curve

INPUTS = (CURATED, EMBEDDED)


def main(recipe: Recipe) -> None:
    """Run the stage."""
    recorded = recipe.model_dump(include={"name", "seed", "engine", "distill"})
    with stage_run("distill", recorded, INPUTS) as run:
        distill(recipe, run_key(recorded, INPUTS), run)


def distill(recipe: Recipe, key: str, run: StageRun | SilentRun) -> None:
    """Build the student, distil it, train it on for the baseline, and write everything to data/distilled.

    Args:
        key: names the run's checkpoints.
    """
    settings, engine = recipe.distill, recipe.engine
    torch.set_num_threads(engine.threads)
    torch.manual_seed(recipe.seed)
    columns = stage1_columns(CURATED, settings.sources)
    encoder, static, texts = untrained_student(recipe, columns)
    place(encoder, precision=engine.precision, packing=engine.packing)
    sample = _sample(len(texts), settings.warm_start.num_texts, recipe.seed)
    targets = texts.targets(sample, torch.device("cpu")).numpy()
    embeddings = embed(encoder, texts[sample])
    psi = nn.Linear(encoder.dimensions, targets.shape[1])
    start_projection(psi, embeddings, targets, settings.warm_start.ridge_penalty)
    if settings.freeze_token_embeddings:
        encoder.backbone.get_input_embeddings().requires_grad_(False)
    objective = stage1_objective(settings, encoder, psi, texts, (targets, embeddings))
    batches, row_ids = batches_of(settings, columns, texts.lengths, engine.processes)

    def train_phase(name: str, seed: int, steps: int, checkpoint: CheckpointFile) -> Curve:
        def log(row: dict[str, float], step: int) -> None:
            run.log_metrics({f"{name}.{figure}": value for figure, value in row.items()}, step)

        def evaluate() -> dict[str, float]:
            return retrieval_on_dev(encoder, CURATED, settings.sources)

        phase = TrainingPhase(name, objective, partial(batches, seed), row_ids, evaluate)
        schedule = settings.training.model_copy(update={"steps": steps})
        return train(phase, schedule, engine, checkpoint, log)[0]

    with (
        checkpoint_file("distill", f"{key}-student") as student_checkpoint,
        checkpoint_file("distill", f"{key}-continued") as continued_checkpoint,
    ):
        curve = train_phase("student", recipe.seed, settings.training.steps, student_checkpoint)
        if not any(parameter is psi.weight for parameter in objective.parameters()):
            start_projection(psi, embed(encoder, texts[sample]), targets, settings.warm_start.ridge_penalty)
        if is_main_process():
            shutil.rmtree(DISTILLED, ignore_errors=True)
            encoder.save(DISTILLED / "student")
            write_projection(psi, DISTILLED / "projection.safetensors")
            write_curve(DISTILLED / "curve.csv", curve)
        train_phase("continued", recipe.seed + 1, settings.continued_steps, continued_checkpoint)
        if is_main_process():
            encoder.save(DISTILLED / "continued")
            tensors = {name: torch.from_numpy(values) for name, values in static.mapped().items()}
            save_file(tensors, DISTILLED / "static.safetensors")
        # If MLflow is unreachable, the checkpoints survive and the next attempt only logs.
        run.log_artifact(DISTILLED / "curve.csv")


def untrained_student(recipe: Recipe, columns: Sequence[Stage1Column]) -> tuple[Encoder, StaticStart, TrainingTexts]:
    """Build the student before training; return the static embedder and the texts of all columns in order too.

    Raises:
        ValueError: too many texts are cut.
    """
    settings = recipe.distill
    donor = token_donor(settings)
    check_columns(donor, columns, settings.max_tokens, settings.max_truncated_share, "distill")
    tokens = Tokens.joined([donor.tokenize(column.texts, column.read_as.side) for column in columns])
    vectors = TeacherVectors(EMBEDDED, recipe.embed)
    teacher = np.concatenate([column.teacher_vectors(vectors) for column in columns])
    static = fit_static(donor, tokens, teacher, settings.warm_start.ridge_penalty)
    return build_student(settings, donor, static), static, TrainingTexts(tokens, torch.from_numpy(teacher))


def batches_of(
    settings: Distill, columns: Sequence[Stage1Column], lengths: np.ndarray, processes: int
) -> tuple[Callable[[int, int], list[np.ndarray]], list[str]]:
    """Return (seed, epoch) -> batches of rows, and the rows' names.

    A row is a text, or a pair if the objective compares pairs.

    Args:
        lengths: number of tokens of each text, column after column.
    """
    training, text_ids = settings.training, [name for column in columns for name in column.text_ids]
    if training.batch_tokens is not None:
        # Token batches hold texts; for pairs the recipe's check requires batch_size.
        budget = training.batch_tokens * processes
        return lambda seed, epoch: shuffled_token_batches(lengths, budget, seed, epoch), text_ids
    assert training.batch_size is not None, "checked with the recipe"
    size = training.batch_size * processes
    if settings.objective == "embedding_distillation":
        name = f"distill.sources {', '.join(settings.sources)}"
        return lambda seed, epoch: shuffled_batches(lengths, size, seed, epoch, name), text_ids
    queries, _ = columns  # the recipe's check admits pairs alone
    pair_lengths, source_of = np.sum(np.split(lengths, 2), axis=0), np.asarray(queries.sources)
    rows_of = {source: np.flatnonzero(source_of == source) for source in settings.sources}
    # Sources are drawn in proportion to their rows, as they are in batches of texts.
    parts = [MixturePart(f"distill.sources {source}", rows, size, len(rows)) for source, rows in rows_of.items()]
    return lambda seed, epoch: drawn_batches(parts, pair_lengths, seed, epoch), queries.ids


def embed(encoder: Encoder, tokens: Tokens) -> np.ndarray:
    """Embed tokenised texts [n]: [n, D] float32."""
    embeddings = np.empty((len(tokens), encoder.dimensions), dtype=np.float32)
    for rows, vectors in encoder.encode_batches(tokens, batch_tokens=4096):
        embeddings[rows] = vectors
    return embeddings


def _sample(total: int, most: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(total, min(most, total), replace=False)
