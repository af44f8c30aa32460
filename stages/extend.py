"""Extend: the student distilled further on long texts, its projection with it; each step draws a source, and with it
the length and the number of its texts.

Writes data/extended: student/, projection.safetensors and curve.csv. With `training.steps` 0 the first two are those of
data/distilled.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

    from stages.modeling.encoder import Encoder
    from stages.objectives.training_texts import Texts
    from stages.tracking.runs import SilentRun, StageRun

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
DISTILLED = Path("data/distilled")
OUTPUT = Path("data/extended")
INPUTS = (CURATED, EMBEDDED, DISTILLED)
SIDES = ("query", "document")


def main() -> None:
    """Run the stage."""
    params = load()
    if params.extend.training.steps:
        from stages.training.launch import launch

        launch(["stages.extend"], params.engine.processes)
    from stages.tracking.runs import stage_run

    section = params.model_dump(include={"name", "seed", "engine", "extend"})
    with stage_run(stage="extend", params=section, inputs=INPUTS) as run:
        if params.extend.training.steps:
            extend(params, section, OUTPUT, run)
        else:
            pass_on(DISTILLED, OUTPUT)
            run.log_artifact(OUTPUT / "curve.csv")


def extend(params: Recipe, section: dict[str, Any], output: Path, run: "StageRun | SilentRun") -> None:
    """Train student and projection on the mixture, and write both to `output`.

    Raises:
        ValueError: a source has too few pairs for a batch, or too many of its texts are cut.
    """
    import torch

    from stages.modeling.encoder import saved_encoder
    from stages.modeling.projection import read_projection, write_projection
    from stages.objectives.distillation import Distillation
    from stages.tracking.main_process import first
    from stages.training.checkpoints import checkpoint_file, run_key
    from stages.training.curves import write_curve
    from stages.training.dev import retrieval_on_dev
    from stages.training.loop import EngineSettings, train
    from stages.training.state import Schedule

    settings = params.extend
    torch.set_num_threads(params.engine.threads)
    torch.manual_seed(params.seed)
    longest = max(draw.max_tokens for draw in settings.mixture)
    encoder = saved_encoder(DISTILLED / "student", settings.rope_theta, longest)
    if params.distill.freeze_token_embeddings:
        encoder.backbone.get_input_embeddings().requires_grad_(False)
    projection = read_projection(DISTILLED / "projection.safetensors")
    data, epoch_batches, ids = training_texts(params, encoder)
    with checkpoint_file("extend", run_key(section, INPUTS), writer=first()) as checkpoint:
        curve, _ = train(
            Distillation(encoder, projection, params.distill.matryoshka_dims, data),
            epoch_batches,
            Schedule(**settings.training.model_dump()),
            checkpoint,
            engine=EngineSettings(**params.engine.model_dump()),
            ids=ids,
            name="extend",
            evaluate=lambda: retrieval_on_dev(encoder, CURATED, [draw.source for draw in settings.mixture]),
            log=run.log_metrics,
        )
        if first():
            shutil.rmtree(output, ignore_errors=True)
            encoder.save(output / "student")
            write_projection(projection, output / "projection.safetensors")
            write_curve(output / "curve.csv", curve)
        # Before the checkpoint goes: where MLflow is away, the next try has nothing to train again.
        run.log_artifact(output / "curve.csv")


def training_texts(
    params: Recipe, encoder: "Encoder"
) -> tuple["Texts", Callable[[int], list["np.ndarray"]], list[str]]:
    """All queries, then all documents, each source cut at its own length; the batches of an epoch; the texts' names.

    A batch is both sides of pairs of one source: `batch_size` pairs on each process.
    """
    import numpy as np

    from stages.corpus.tables import read_split
    from stages.modeling.truncation import check_truncation
    from stages.objectives.training_texts import joined, texts_of
    from stages.teachers.teacher_vectors import TeacherVectors
    from stages.training.batches import Part, by_language, drawn_batches

    mixture = params.extend.mixture
    teacher = TeacherVectors(EMBEDDED, params.embed)
    tables = [read_split(CURATED, "pairs", "train", [draw.source]) for draw in mixture]
    parts: dict[str, list[Texts]] = {side: [] for side in SIDES}
    for draw, table in zip(mixture, tables, strict=True):
        texts = {side: table[side].to_pylist() for side in SIDES}
        name = f"extend.mixture {draw.source}"
        check_truncation(encoder, texts, draw.max_tokens, params.extend.max_truncated_share, name)
        for side in SIDES:
            vectors = teacher.of(side, texts[side], [draw.source] * len(table))
            parts[side].append(texts_of(encoder, texts[side], side, draw.max_tokens, vectors))
    lengths = joined(parts["document"]).lengths
    rows_of = np.split(np.arange(len(lengths)), np.cumsum([len(table) for table in tables])[:-1])
    of_source = [
        Part(f"extend.mixture {draw.source}", rows, draw.batch_size * params.engine.processes, draw.weight)
        for draw, rows in zip(mixture, rows_of, strict=True)
    ]
    languages = [language for table in tables for language in table["language"].to_pylist()]
    drawn = by_language(of_source, languages, params.extend.language_exponent)

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        pairs = drawn_batches(drawn, lengths, params.seed, epoch)
        return [np.concatenate([batch, batch + len(lengths)]) for batch in pairs]

    names = [name for table in tables for name in table["id"].to_pylist()]
    ids = [f"{name} ({side})" for side in SIDES for name in names]
    return joined([part for side in SIDES for part in parts[side]]), epoch_batches, ids


def pass_on(distilled: Path, output: Path) -> None:
    """Hand the distilled student on as it is, where the recipe leaves this phase out; the curve is empty."""
    from stages.training.curves import write_curve

    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(distilled / "student", output / "student")
    shutil.copy(distilled / "projection.safetensors", output)
    write_curve(output / "curve.csv", [])


if __name__ == "__main__":
    main()
