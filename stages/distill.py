"""Distill: stage 1 of the recipe, the frozen teacher's vectors into the student through a student-side projection.

Writes data/distilled: student/ (backbone, tokenizer, encoder.json), projection.safetensors, continued/ (the student
trained on for `continued_steps`, a baseline), static.safetensors (the closed-form baseline) and curve.csv.

`projection.safetensors` is psi, R^D -> R^T, whatever the objective: stage 2 distils through it. Where stage 1 trains
without one (`objective: score_distillation` or `info_nce`, `projection.side: teacher`), it is the ridge solution after
training.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import nn

    from stages.modeling.encoder import Encoder
    from stages.objectives.objective import Objective
    from stages.objectives.training_texts import Texts
    from stages.tracking.runs import SilentRun, StageRun
    from stages.training.state import Curve

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
OUTPUT = Path("data/distilled")
INPUTS = (CURATED, EMBEDDED)
SIDES = ("query", "document")


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.launch import launch

    launch(["stages.distill"], params.engine.processes)
    from stages.tracking.runs import stage_run

    section = params.model_dump(include={"name", "seed", "engine", "distill"})
    with stage_run(stage="distill", params=section, inputs=INPUTS) as run:
        distill(params, section, OUTPUT, run)


def distill(params: Recipe, section: dict[str, Any], output: Path, run: "StageRun | SilentRun") -> None:
    """Build the student, distil it, train it on for the baseline, and write all to `output`."""
    import torch
    from safetensors.torch import save_file

    from stages.corpus.tables import read_split
    from stages.modeling.encoder import place
    from stages.modeling.projection import write_projection
    from stages.modeling.warm_start import start_projection
    from stages.tracking.main_process import first
    from stages.training.checkpoints import CheckpointFile, checkpoint_file, run_key
    from stages.training.curves import write_curve
    from stages.training.dev import retrieval_on_dev
    from stages.training.loop import EngineSettings, train
    from stages.training.state import Schedule

    settings = params.distill
    torch.set_num_threads(params.engine.threads)
    torch.manual_seed(params.seed)
    pairs = read_split(CURATED, "pairs", "train", settings.sources)
    encoder, static, data = _student(params, pairs)
    place(encoder, precision=params.engine.precision, packing=params.engine.packing)
    sample = _sample(len(data.tokens), settings.warm_start.num_texts, params.seed)
    targets = data.targets(sample, torch.device("cpu")).numpy()
    start = _embed(encoder, data, sample)
    psi = torch.nn.Linear(encoder.dimensions, targets.shape[1])
    start_projection(psi, start, targets, settings.warm_start.ridge_penalty)
    if settings.freeze_token_embeddings:
        encoder.backbone.get_input_embeddings().requires_grad_(False)
    objective = _objective(params, encoder, psi, data, (targets, start))
    batches, ids = _batches(params, pairs, data.lengths)
    key = run_key(section, INPUTS)
    schedule = Schedule(**settings.training.model_dump(exclude={"batch_tokens", "batch_size"}))

    def train_phase(schedule: Schedule, checkpoint: CheckpointFile, name: str, seed: int) -> "Curve":
        curve, _ = train(
            objective,
            lambda epoch: batches(seed, epoch),
            schedule,
            checkpoint,
            engine=EngineSettings(**params.engine.model_dump()),
            ids=ids,
            name=name,
            evaluate=lambda: retrieval_on_dev(encoder, CURATED, settings.sources),
            log=lambda row, step: run.log_metrics({f"{name}.{key}": value for key, value in row.items()}, step),
        )
        return curve

    with (
        checkpoint_file("distill", f"{key}-student", writer=first()) as one,
        checkpoint_file("distill", f"{key}-continued", writer=first()) as two,
    ):
        curve = train_phase(schedule, one, "student", params.seed)
        if not any(parameter is psi.weight for parameter in objective.parameters()):
            start_projection(psi, _embed(encoder, data, sample), targets, settings.warm_start.ridge_penalty)
        if first():
            shutil.rmtree(output, ignore_errors=True)
            encoder.save(output / "student")
            write_projection(psi, output / "projection.safetensors")
            write_curve(output / "curve.csv", curve)
        train_phase(replace(schedule, steps=settings.continued_steps), two, "continued", params.seed + 1)
        if first():
            encoder.save(output / "continued")
            tensors = {name: torch.from_numpy(values) for name, values in static.items()}
            save_file(tensors, output / "static.safetensors")
        # Before the checkpoint goes: where MLflow is away, the next try has nothing to train again.
        run.log_artifact(output / "curve.csv")


def _objective(
    params: Recipe, encoder: "Encoder", psi: "nn.Linear", data: "Texts", start: tuple["np.ndarray", "np.ndarray"]
) -> "Objective":
    """What `distill.objective` and `distill.projection` name, over texts (queries, then documents) or pairs of both.

    A projection on the teacher's side starts as the rotation of the teacher's space that brings the vectors of some
    texts nearest to the untrained student's, `start` ([n, T], [n, D]): it keeps what the teacher tells apart.

    Raises:
        ValueError: the student has more dimensions than the teacher, so nothing is projected down.
    """
    import torch

    from stages.modeling.warm_start import nearest_rotation
    from stages.objectives.distillation import Distillation, TeacherSideDistillation
    from stages.objectives.pairs import PairContrast, ScoreDistillation
    from stages.objectives.training_texts import Texts

    settings = params.distill
    dims, trained = settings.matryoshka_dims, settings.projection.trained
    if settings.objective != "embedding_distillation":
        half = len(data.tokens) // 2
        queries, documents = (
            Texts(data.tokens[part], None if data.teacher is None else data.teacher[part])
            for part in (slice(half), slice(half, None))
        )
        kind = ScoreDistillation if settings.objective == "score_distillation" else PairContrast
        return kind(encoder, dims, queries, documents, settings.temperature)
    if settings.projection.side == "student":
        return Distillation(encoder, psi.requires_grad_(trained), dims, data)
    if psi.in_features > psi.out_features:
        raise ValueError(
            f"distill.projection.side: teacher projects {psi.out_features} dimensions down, the student has "
            f"{psi.in_features}; use side: student"
        )
    down = torch.nn.Linear(psi.out_features, psi.in_features)
    with torch.no_grad():
        down.weight.copy_(torch.from_numpy(nearest_rotation(*start).T))
        down.bias.zero_()
    return TeacherSideDistillation(encoder, down.requires_grad_(trained), dims, data)


def _batches(
    params: Recipe, pairs: "pa.Table", lengths: "np.ndarray"
) -> tuple[Callable[[int, int], list["np.ndarray"]], list[str]]:
    """(seed, epoch) -> batches of row numbers, and the rows' names: texts, or pairs where the objective reads pairs."""
    import numpy as np

    from stages.training.batches import Part, drawn_batches, shuffled_batches, shuffled_token_batches

    settings, training, processes = params.distill, params.distill.training, params.engine.processes
    ids = pairs["id"].to_pylist()
    names = [f"{name} ({side})" for side in SIDES for name in ids]
    if training.batch_tokens is not None:  # of texts: pairs come with a batch_size, the recipe's check says
        budget = training.batch_tokens * processes
        return lambda seed, epoch: shuffled_token_batches(lengths, budget, seed, epoch), names
    assert training.batch_size is not None, "checked with the recipe"
    size = training.batch_size * processes
    if settings.objective == "embedding_distillation":
        name = f"distill.sources {', '.join(settings.sources)}"
        return lambda seed, epoch: shuffled_batches(lengths, size, seed, epoch, name), names
    of_pair = np.sum(np.split(lengths, 2), axis=0)
    sources = np.asarray(pairs["source"].to_pylist())
    rows_of = {source: np.flatnonzero(sources == source) for source in settings.sources}
    # Every source in proportion to its rows, as in batches of texts.
    parts = [Part(f"distill.sources {source}", rows, size, len(rows)) for source, rows in rows_of.items()]
    return lambda seed, epoch: drawn_batches(parts, of_pair, seed, epoch), ids


def _student(params: Recipe, pairs: "pa.Table") -> tuple["Encoder", dict[str, "np.ndarray"], "Texts"]:
    """The student before training, the static closed-form embedder (table, token weights), and the tokenised texts with
    their teacher vectors: queries, then documents.
    """
    import numpy as np
    import torch

    from stages.modeling import warm_start
    from stages.modeling.encoder import Encoder, EncoderSettings, load_backbone, load_encoder, load_tokenizer
    from stages.modeling.rotary import with_rotary_positions
    from stages.modeling.tokens import Tokens
    from stages.modeling.truncation import check_truncation
    from stages.objectives.training_texts import Texts
    from stages.teachers.teacher_vectors import TeacherVectors

    settings, shape = params.distill, params.distill.backbone
    store = TeacherVectors(EMBEDDED, params.embed)
    how = EncoderSettings(settings.pooling, dict(settings.prompts), settings.max_tokens, settings.rope_theta)
    tokenizer, donor = load_tokenizer(shape.path), load_backbone(shape.path)
    table = warm_start.token_table(donor)
    # Only the tokenizer, prompts and cut of this encoder are used.
    reader = Encoder(donor, tokenizer, replace(how, rope_theta=None))
    texts = {side: pairs[side].to_pylist() for side in SIDES}
    check_truncation(reader, texts, settings.max_tokens, settings.max_truncated_share, "distill")
    tokens = Tokens.joined([reader.tokenize(texts[side], side) for side in SIDES])
    teacher = np.concatenate([store.of(side, texts[side], pairs["source"].to_pylist()) for side in SIDES])
    data = Texts(tokens, torch.from_numpy(teacher))
    weights = warm_start.token_weights(tokens, len(table))
    mapping = warm_start.static_map(table, weights, tokens, teacher, settings.warm_start.ridge_penalty)
    static = {"table": (table @ mapping).astype(np.float16), "weights": weights.astype(np.float32)}
    if shape.architecture == "pretrained":
        return load_encoder(shape.path, how, shape.layers), static, data
    assert how.rope_theta is not None, "checked with the recipe"
    assert shape.max_position_embeddings is not None, "checked with the recipe"
    if shape.architecture == "rotary":
        bert = load_backbone(shape.path, shape.layers)
        backbone = with_rotary_positions(bert, how.rope_theta, shape.max_position_embeddings)
        return Encoder(backbone, tokenizer, how), static, data
    built = warm_start.eurobert(
        table,
        weights,
        mapping,
        tokenizer,
        **shape.model_dump(exclude={"path", "architecture", "layers"}),
        rope_theta=how.rope_theta,
    )
    return Encoder(built, tokenizer, how), static, data


def _sample(total: int, wanted: int, seed: int) -> "np.ndarray":
    import numpy as np

    return np.random.default_rng(seed).choice(total, min(wanted, total), replace=False)


def _embed(encoder: "Encoder", data: Any, rows: "np.ndarray") -> "np.ndarray":
    import numpy as np

    embeddings = np.empty((len(rows), encoder.dimensions), dtype=np.float32)
    for places, vectors in encoder.encode_batches(data[rows], batch_tokens=4096):
        embeddings[places] = vectors
    return embeddings


if __name__ == "__main__":
    main()
