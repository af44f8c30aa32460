"""Adapt: stage 2 of the paper, a LoRA adapter on the frozen student for each task.

`python -m stages.adapt TASK` writes data/adapted/<task>: the adapter in PEFT's format, and curve.csv. For a task
that the recipe leaves out it writes an empty curve and ends before torch is imported.
"""

if __name__ == "__main__":  # The entry checks the recipe and starts the processes before torch is imported.
    from stages.entry import run_stage
    from stages.training.absent_task import leave_absent

    run_stage("adapt", distributed=True, skip=lambda recipe, task: leave_absent(recipe.adapt, task))

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from stages.corpus.tables import SCHEMAS, given_negatives, read_split, read_table
from stages.modeling.adapters import add_adapter, average_adapter, save_adapter
from stages.modeling.encoder import Encoder, saved_encoder
from stages.modeling.projection import read_projection
from stages.modeling.truncation import check_truncation
from stages.objectives.classification import ClassificationObjective
from stages.objectives.distillation import DistillationObjective
from stages.objectives.retrieval import RetrievalObjective, negative_rows
from stages.objectives.text_matching import TextMatchingObjective
from stages.objectives.training_texts import TrainingTexts
from stages.recipe.adapt import Classification, Clustering, Retrieval, TaskSettings, TextMatching
from stages.recipe.paths import ADAPTED, CURATED, EMBEDDED, EXTENDED, MINED
from stages.recipe.recipe import Recipe
from stages.teachers.teacher_vectors import TeacherVectors
from stages.tracking.main_process import is_main_process
from stages.tracking.runs import stage_run
from stages.training.batches import EpochBatches, drawn_batches, mixed_batches, shuffled_batches, split_by_language
from stages.training.checkpoints import checkpoint_file, run_key
from stages.training.curves import write_curve
from stages.training.dev import clustering_on_dev, retrieval_on_dev, similarity_on_dev
from stages.training.loop import TrainingPhase, train
from stages.training.mixture import load_pairs, with_given_negatives
from stages.training.stage1_texts import read_once, stage1_columns

INPUTS = (CURATED, EMBEDDED, EXTENDED)  # of every task; retrieval reads MINED too

BuildPhase = Callable[[Recipe, Encoder, nn.Linear], TrainingPhase]


def main(recipe: Recipe, task: str) -> None:
    """Train the adapter of a task: `retrieval`, `text-matching`, `clustering` or `classification`.

    Raises:
        ValueError: the recipe does not train this task.
    """
    settings = next((section for name, section in recipe.adapt.trained.items() if name == task), None)
    if settings is None:
        raise ValueError(f"got task {task!r}, expected one that the recipe trains: {', '.join(recipe.adapt.tasks)}")
    recorded = recipe.model_dump(include={"name", "seed", "engine"}) | settings.model_dump()
    adapt(task, recipe, settings, PHASES[task], recorded)


def adapt(task: str, recipe: Recipe, settings: TaskSettings, build_phase: BuildPhase, recorded: dict[str, Any]) -> None:
    """Train an adapter and save it under its task's name.

    Args:
        settings: section with the adapter's LoRA and training settings.
        build_phase: makes the phase from the recipe, the encoder with its new adapter, and the projection of stage 1.
        recorded: values of the recipe that go to MLflow and into the checkpoint's key.
    """
    torch.set_num_threads(recipe.engine.threads)
    torch.manual_seed(recipe.seed)
    inputs, average, snapshot_at = list(INPUTS), None, None
    if isinstance(settings, Retrieval):
        inputs, average = [*INPUTS, MINED], settings.average
        max_tokens = max(draw.max_tokens for draw in settings.mixture)
        snapshot_at = max(1, round(average.earlier * settings.training.steps))
    else:
        max_tokens = settings.max_tokens
    with stage_run(f"adapt@{task}", recorded, inputs) as run:
        encoder = saved_encoder(EXTENDED / "student", settings.rope_theta, max_tokens)
        add_adapter(encoder, task, settings.lora.rank, settings.lora.alpha)
        phase = build_phase(recipe, encoder, read_projection(EXTENDED / "projection.safetensors"))
        with checkpoint_file(f"adapt-{task}", run_key(recorded, inputs)) as checkpoint:
            curve, snapshot = train(phase, settings.training, recipe.engine, checkpoint, run.log_metrics, snapshot_at)
            if average is not None:
                earlier = {key.removeprefix("encoder."): value for key, value in snapshot.items() if "lora_" in key}
                average_adapter(encoder, earlier, average.weight)
                run.log_metrics({f"averaged_dev_{name}": value for name, value in phase.evaluate().items()})
            if is_main_process():
                shutil.rmtree(ADAPTED / task, ignore_errors=True)
                save_adapter(encoder, task, ADAPTED / task)
                write_curve(ADAPTED / task / "curve.csv", curve)
            # If MLflow is unreachable, the checkpoint survives and the next attempt only logs.
            run.log_artifact(ADAPTED / task / "curve.csv")


def retrieval(recipe: Recipe, encoder: Encoder, projection: nn.Linear) -> TrainingPhase:
    """Train on queries, their documents and hard negatives: those that the sources name, then mined ones.

    Raises:
        ValueError: a source has too few pairs with enough hard negatives for a batch, or too many of its texts are cut.
    """
    settings, dims, engine = recipe.adapt.retrieval, recipe.distill.matryoshka_dims, recipe.engine
    assert isinstance(settings, Retrieval), "main trains no absent task"
    teacher = TeacherVectors(EMBEDDED, recipe.embed)
    pairs = load_pairs(settings, encoder, teacher, engine.processes)
    mined = read_table(MINED / "negatives.parquet")
    negatives_of = dict(zip(mined["id"].to_pylist(), mined["negatives"].to_pylist(), strict=True))
    documents, given = with_given_negatives(pairs, settings, encoder, teacher)
    negatives = negative_rows(pairs.ids, negatives_of, settings.num_negatives, given)
    is_given = np.array([np.isin(of_pair, given.get(row, [])) for row, of_pair in enumerate(negatives)])
    has_enough: np.ndarray = negatives.min(axis=1) >= 0
    parts = [replace(part, rows=part.rows[has_enough[part.rows]]) for part in pairs.parts]
    for part in parts:
        if len(part.rows) < 2:
            raise ValueError(
                f"{part.name}: got {len(part.rows)} pairs with {settings.num_negatives} hard negatives, expected at "
                "least 2; lower num_negatives, or have mine find more (rank_window, relative_margin, absolute_margin) "
                "or leave out fewer (consistency; data/mined/audit.html)"
            )
    parts = split_by_language(parts, pairs.languages, settings.language_exponent)
    sources = [draw.source for draw in settings.mixture]
    return TrainingPhase(
        "adapt retrieval",
        RetrievalObjective(encoder, projection, dims, settings, (pairs.queries, documents), negatives, is_given),
        partial(drawn_batches, parts, documents.lengths, recipe.seed),
        pairs.ids,
        lambda: retrieval_on_dev(encoder, CURATED, sources),
    )


def text_matching(recipe: Recipe, encoder: Encoder, projection: nn.Linear) -> TrainingPhase:
    """Train on pairs with scores and pairs without, all read as documents; of the latter's negatives on the first.

    A batch holds one kind of pairs; where the recipe has both kinds, `scored_share` of the batches hold pairs with
    scores.
    """
    settings, dims, seed = recipe.adapt.text_matching, recipe.distill.matryoshka_dims, recipe.seed
    assert isinstance(settings, TextMatching), "main trains no absent task"
    scored, pairs = _train_rows("scored", settings.scored_sources), _train_rows("pairs", settings.pair_sources)
    left = scored["text_a"].to_pylist() + pairs["query"].to_pylist()
    right = scored["text_b"].to_pylist() + pairs["document"].to_pylist()
    sources = scored["source"].to_pylist() + pairs["source"].to_pylist()
    vectors = TeacherVectors(EMBEDDED, recipe.embed).of("document", left + right, sources * 2)
    texts_of = partial(_documents, "adapt.text-matching", settings, encoder)
    sides = texts_of(left + right, vectors).halves()
    first_negatives = {row: texts[0] for row, texts in enumerate(given_negatives(pairs), len(scored)) if texts}
    added, negatives = _rows_of_negatives(first_negatives, right, len(scored))
    if added:
        sides = (sides[0], TrainingTexts.joined([sides[1], texts_of(added)]))
    size, num_scored, lengths = settings.training.batch_size * recipe.engine.processes, len(scored), sides[0].lengths
    scored_key = f"adapt.text-matching.scored_sources {', '.join(settings.scored_sources)}"
    pairs_key = f"adapt.text-matching.pair_sources {', '.join(settings.pair_sources)}"

    def epoch_batches(epoch: int) -> list[np.ndarray]:
        with_scores = shuffled_batches(lengths[:num_scored], size, seed, epoch, scored_key) if len(scored) else []
        without = shuffled_batches(lengths[num_scored:], size, seed, epoch, pairs_key) if len(pairs) else []
        parts = (with_scores, [rows + num_scored for rows in without])
        share = settings.scored_share if all(parts) else float(bool(with_scores))
        return mixed_batches(parts, (share, 1 - share), seed, epoch)

    return TrainingPhase(
        "adapt text-matching",
        TextMatchingObjective(encoder, projection, dims, settings, sides, scored["score"].to_numpy(), negatives),
        epoch_batches,
        scored["id"].to_pylist() + pairs["id"].to_pylist(),
        lambda: similarity_on_dev(encoder, CURATED, settings.scored_sources),
    )


def clustering(recipe: Recipe, encoder: Encoder, projection: nn.Linear) -> TrainingPhase:
    """Train on texts of any kind, read as documents, towards the teacher's vectors under its clustering instruction.

    The labels of the dev score are those of classification; without its sources there is no dev score.
    """
    settings, dims = recipe.adapt.clustering, recipe.distill.matryoshka_dims
    assert isinstance(settings, Clustering), "main trains no absent task"
    teacher, columns = TeacherVectors(EMBEDDED, recipe.embed), read_once(stage1_columns(CURATED, settings.sources))
    texts = [text for column in columns for text in column.texts]
    vectors = np.concatenate([teacher.of("clustering", column.targets, column.sources) for column in columns])
    data = _documents("adapt.clustering", settings, encoder, texts, vectors)
    return TrainingPhase(
        "adapt clustering",
        DistillationObjective(encoder, projection.requires_grad_(False), dims, data),
        _row_batches("adapt.clustering.sources", settings, data.lengths, recipe),
        [name for column in columns for name in column.text_ids],
        lambda: clustering_on_dev(encoder, CURATED, recipe.adapt.classification.sources, recipe.seed),
    )


def classification(recipe: Recipe, encoder: Encoder, projection: nn.Linear) -> TrainingPhase:
    """Train on labelled texts; the projection is not read."""
    settings, dims = recipe.adapt.classification, recipe.distill.matryoshka_dims
    assert isinstance(settings, Classification), "main trains no absent task"
    rows = read_split(CURATED, "labelled", "train", settings.sources)
    data = _documents("adapt.classification", settings, encoder, rows["text"].to_pylist())
    labels = [f"{row['source']}/{row['label']}" for row in rows.select(["source", "label"]).to_pylist()]
    return TrainingPhase(
        "adapt classification",
        ClassificationObjective(encoder, dims, settings, data, labels, recipe.seed),
        _row_batches("adapt.classification.sources", settings, data.lengths, recipe),
        rows["id"].to_pylist(),
        lambda: clustering_on_dev(encoder, CURATED, settings.sources, recipe.seed),
    )


def _train_rows(kind: str, sources: Sequence[str]) -> pa.Table:
    """Read training rows, which are none where there are no sources."""
    return read_split(CURATED, kind, "train", sources) if sources else SCHEMAS[kind].empty_table()


def _rows_of_negatives(
    negatives: dict[int, str], right: list[str], num_scored: int
) -> tuple[list[str], dict[int, int]]:
    """Return the texts that are no pair's right text yet, and the row of each negative among right texts and these."""
    row_of = {text: row for row, text in enumerate(right) if row >= num_scored}
    added = [text for text in dict.fromkeys(negatives.values()) if text not in row_of]
    row_of |= {text: row for row, text in enumerate(added, len(right))}
    return added, {row: row_of[text] for row, text in negatives.items()}


def _documents(
    key: str,
    settings: TextMatching | Clustering | Classification,
    encoder: Encoder,
    texts: list[str],
    teacher: np.ndarray | None = None,
) -> TrainingTexts:
    """Tokenise texts as documents, unless too many of them would be cut."""
    check_truncation(encoder, {"document": texts}, settings.max_tokens, settings.max_truncated_share, key)
    return TrainingTexts.of(encoder, texts, "document", settings.max_tokens, teacher)


def _row_batches(key: str, settings: Clustering | Classification, lengths: np.ndarray, recipe: Recipe) -> EpochBatches:
    size, name = settings.training.batch_size * recipe.engine.processes, f"{key} {', '.join(settings.sources)}"
    return lambda epoch: shuffled_batches(lengths, size, recipe.seed, epoch, name)


PHASES: dict[str, BuildPhase] = {
    "retrieval": retrieval,
    "text-matching": text_matching,
    "clustering": clustering,
    "classification": classification,
}
