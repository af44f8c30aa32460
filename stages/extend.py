"""Extend: stage 1 goes on with long texts. Each step draws a source, and with it the length and number of its texts.

Writes data/extended: student/, projection.safetensors and curve.csv. With `training.steps` 0 the first two are those of
data/distilled.
"""

if __name__ == "__main__":  # The entry checks the recipe and starts the processes before torch is imported.
    from stages.entry import run_stage

    run_stage("extend", distributed=True)

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stages.modeling.encoder import Encoder, saved_encoder
from stages.modeling.projection import read_projection, write_projection
from stages.objectives.distillation import DistillationObjective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.paths import CURATED, DISTILLED, EMBEDDED, EXTENDED
from stages.recipe.recipe import Recipe
from stages.recipe.training import Draw
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.main_process import is_main_process
from stages.tracking.runs import SilentRun, StageRun, stage_run
from stages.training.batches import EpochBatches, MixturePart, drawn_batches, split_by_language
from stages.training.checkpoints import checkpoint_file, run_key
from stages.training.curves import write_curve
from stages.training.dev import retrieval_on_dev
from stages.training.loop import TrainingPhase, train
from stages.training.stage1_texts import check_columns, stage1_columns

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
        ValueError: a source has too few rows for a batch, or too many of its texts are cut.
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


class MixtureSource(NamedTuple):
    """The rows of a source of the mixture: their texts as stage 1 reads them, column after column."""

    columns: list[TrainingTexts]
    text_ids: list[str]
    languages: list[str]


def training_data(recipe: Recipe, encoder: Encoder) -> tuple[TrainingTexts, EpochBatches, list[str]]:
    """Return the texts of all sources, the batches of an epoch, and the texts' names.

    A batch holds all texts of some rows of one source: `batch_size` rows on each process.
    """
    settings, teacher = recipe.extend, TeacherVectors(EMBEDDED, recipe.embed)
    sources = [read_source(draw, settings.max_truncated_share, encoder, teacher) for draw in settings.mixture]
    ends = np.cumsum([len(source.languages) for source in sources])
    parts = [
        MixturePart(
            f"extend.mixture {draw.source}", np.arange(end - len(source.languages), end),
            draw.batch_size * recipe.engine.processes, draw.weight,
        )
        for draw, source, end in zip(settings.mixture, sources, ends, strict=True)
    ]  # fmt: skip
    languages = [language for source in sources for language in source.languages]
    parts = split_by_language(parts, languages, settings.language_exponent)
    lengths = np.concatenate([source.columns[-1].lengths for source in sources])
    texts_of = texts_of_rows(sources)

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        # All texts of the first column, then those of the second, as the rows of a batch have the same columns.
        batches = (texts_of[:, rows].reshape(-1) for rows in drawn_batches(parts, lengths, recipe.seed, epoch))
        return [texts[texts >= 0] for texts in batches]

    texts = TrainingTexts.joined([column for source in sources for column in source.columns])
    return texts, epoch_batches, [name for source in sources for name in source.text_ids]


def read_source(draw: Draw, max_truncated_share: float, encoder: Encoder, teacher: TeacherVectors) -> MixtureSource:
    """Read and tokenise the texts of a source, and look up the teacher's vectors at which they aim.

    Raises:
        ValueError: too many of its texts are cut.
    """
    columns = stage1_columns(CURATED, [draw.source])
    check_columns(encoder, columns, draw.max_tokens, max_truncated_share, f"extend.mixture {draw.source}")
    texts = [
        TrainingTexts.of(encoder, column.texts, column.read_as.side, draw.max_tokens, column.teacher_vectors(teacher))
        for column in columns
    ]
    return MixtureSource(texts, [name for column in columns for name in column.text_ids], columns[0].languages)


def texts_of_rows(sources: Sequence[MixtureSource]) -> np.ndarray:
    """Number the texts of each row, [most columns, rows]; -1 where a source has fewer columns."""
    most, start, numbers = max(len(source.columns) for source in sources), 0, []
    for source in sources:
        shape = len(source.columns), len(source.languages)
        of_source = start + np.arange(np.prod(shape)).reshape(shape)
        numbers.append(np.pad(of_source, ((0, most - len(source.columns)), (0, 0)), constant_values=-1))
        start += of_source.size
    return np.concatenate(numbers, axis=1)


def hand_on(distilled: Path, output: Path) -> None:
    """Copy the distilled student as it is, where the recipe leaves this phase out; the curve is empty.

    Modes are not copied: where DVC links its cache, the student's files are read-only.
    """
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(distilled / "student", output / "student", copy_function=shutil.copyfile)
    shutil.copyfile(distilled / "projection.safetensors", output / "projection.safetensors")
    write_curve(output / "curve.csv", [])
