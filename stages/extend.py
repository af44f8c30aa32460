"""Extend: stage 1 goes on with long texts. Each step draws a source, and with it the length and number of its texts.

Writes data/extended: student/, projection.safetensors and curve.csv. With `training.steps` 0 the first two are those of
data/distilled.
"""

if __name__ == "__main__":  # The entry checks the recipe and starts the processes before torch is imported.
    from stages.entry import run_stage

    run_stage("extend", distributed=True)

import shutil
from pathlib import Path

import numpy as np
import torch

from stages.modeling.encoder import Encoder, saved_encoder
from stages.modeling.projection import read_projection, write_projection
from stages.objectives.distillation import DistillationObjective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.paths import CURATED, DISTILLED, EMBEDDED, EXTENDED
from stages.recipe.recipe import Recipe
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.main_process import is_main_process
from stages.tracking.runs import SilentRun, StageRun, stage_run
from stages.training.batches import EpochBatches, drawn_batches, split_by_language
from stages.training.checkpoints import checkpoint_file, run_key
from stages.training.curves import write_curve
from stages.training.dev import retrieval_on_dev
from stages.training.loop import TrainingPhase, train
from stages.training.mixture import SIDES, load_pairs

INPUTS = (CURATED, EMBEDDED, DISTILLED)


def main(recipe: Recipe) -> None:
    """Run the stage."""
    recorded = recipe.model_dump(include={"name", "seed", "engine", "extend"})
    with stage_run("extend", recorded, INPUTS) as run:
        if recipe.extend.training.steps:
            extend(recipe, run_key(recorded, INPUTS), run)
        elif is_main_process():
            hand_on(DISTILLED, EXTENDED)
            run.log_artifact(EXTENDED / "curve.csv")


def extend(recipe: Recipe, key: str, run: StageRun | SilentRun) -> None:
    """Train student and projection on the mixture, and write both to data/extended.

    Args:
        key: names the run's checkpoint.

    Raises:
        ValueError: a source has too few pairs for a batch, or too many of its texts are cut.
    """
    settings, dims = recipe.extend, recipe.distill.matryoshka_dims
    torch.set_num_threads(recipe.engine.threads)
    torch.manual_seed(recipe.seed)
    longest = max(draw.max_tokens for draw in settings.mixture)
    encoder = saved_encoder(DISTILLED / "student", settings.rope_theta, longest)
    if recipe.distill.freeze_token_embeddings:
        encoder.backbone.get_input_embeddings().requires_grad_(False)
    projection = read_projection(DISTILLED / "projection.safetensors")
    texts, epoch_batches, row_ids = training_data(recipe, encoder)
    objective = DistillationObjective(encoder, projection, dims, texts)
    sources = [draw.source for draw in settings.mixture]
    phase = TrainingPhase(
        "extend", objective, epoch_batches, row_ids, lambda: retrieval_on_dev(encoder, CURATED, sources)
    )
    with checkpoint_file("extend", key) as checkpoint:
        curve, _ = train(phase, settings.training, recipe.engine, checkpoint, run.log_metrics)
        if is_main_process():
            shutil.rmtree(EXTENDED, ignore_errors=True)
            encoder.save(EXTENDED / "student")
            write_projection(projection, EXTENDED / "projection.safetensors")
            write_curve(EXTENDED / "curve.csv", curve)
        # If MLflow is unreachable, the checkpoint survives and the next attempt only logs.
        run.log_artifact(EXTENDED / "curve.csv")


def training_data(recipe: Recipe, encoder: Encoder) -> tuple[TrainingTexts, EpochBatches, list[str]]:
    """Return all queries, then all documents; the batches of an epoch; and the texts' names.

    A batch holds both sides of pairs of one source: `batch_size` pairs on each process.
    """
    settings, teacher = recipe.extend, TeacherVectors(EMBEDDED, recipe.embed)
    pairs = load_pairs("extend.mixture", settings, encoder, teacher, recipe.engine.processes)
    parts = split_by_language(pairs.parts, pairs.languages, settings.language_exponent)

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        batches = drawn_batches(parts, pairs.documents.lengths, recipe.seed, epoch)
        return [np.concatenate([rows, rows + len(pairs.ids)]) for rows in batches]

    row_ids = [f"{pair} ({side})" for side in SIDES for pair in pairs.ids]
    return TrainingTexts.joined([pairs.queries, pairs.documents]), epoch_batches, row_ids


def hand_on(distilled: Path, output: Path) -> None:
    """Copy the distilled student as it is, where the recipe leaves this phase out; the curve is empty.

    Modes are not copied: where DVC links its cache, the student's files are read-only.
    """
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(distilled / "student", output / "student", copy_function=shutil.copyfile)
    shutil.copyfile(distilled / "projection.safetensors", output / "projection.safetensors")
    write_curve(output / "curve.csv", [])
