"""Distill: stage 1 of the recipe, the frozen teacher's vectors into the student through a student-side projection.

Writes data/distilled: student/ (backbone, tokenizer, encoder.json), projection.safetensors, continued/ (the student
trained on for `continued_steps`, a baseline), static.safetensors (the closed-form baseline) and curve.csv.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.params import Params, load

if TYPE_CHECKING:
    import numpy as np

    from stages.modeling.encoder import Encoder
    from stages.objectives.texts import Texts
    from stages.training.tracking import StageRun

CURATED = Path("data/curated")
EMBEDDED = Path("data/embedded")
OUTPUT = Path("data/distilled")
INPUTS = (CURATED, EMBEDDED)


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.tracking import stage_run

    section = params.model_dump(include={"name", "seed", "engine", "distill"})
    with stage_run(stage="distill", params=section, inputs=INPUTS) as run:
        distill(params, section, OUTPUT, run)
        run.log_artifact(OUTPUT / "curve.csv")


def distill(params: Params, section: dict[str, Any], output: Path, run: "StageRun") -> None:
    """Build the student, distil it, train it on for the baseline, and write all to `output`."""
    import torch
    from safetensors.torch import save_file

    from stages.corpus.batches import shuffled_token_batches
    from stages.modeling.warm_start import start_projection
    from stages.objectives.distillation import Distillation
    from stages.training.checkpoints import CheckpointFile, checkpoint_file, run_key
    from stages.training.curves import write_curve
    from stages.training.dev import retrieval_on_dev
    from stages.training.loop import Curve, Schedule, train

    settings = params.distill
    torch.set_num_threads(params.engine.threads)
    torch.manual_seed(params.seed)
    texts, sides, teacher = _training_texts(params)
    encoder, static, data = _student(params, texts, sides, teacher)
    projection = torch.nn.Linear(encoder.dimensions, teacher.shape[1])
    sample = _sample(len(texts), settings.warm_start.num_texts, params.seed)
    start_projection(projection, _embed(encoder, data, sample), teacher[sample], settings.warm_start.ridge_penalty)
    if settings.freeze_token_embeddings:
        encoder.backbone.get_input_embeddings().requires_grad_(False)
    objective = Distillation(encoder, projection, settings.matryoshka_dims, data)
    shutil.rmtree(output, ignore_errors=True)
    key = run_key(section, INPUTS)
    schedule = Schedule(**settings.training.model_dump(exclude={"batch_tokens"}))

    def train_phase(schedule: Schedule, checkpoint: CheckpointFile, name: str, seed: int) -> Curve:
        curve, _ = train(
            objective,
            lambda epoch: shuffled_token_batches(data.lengths, settings.training.batch_tokens, seed, epoch),
            schedule,
            checkpoint,
            name=name,
            evaluate=lambda: retrieval_on_dev(encoder, CURATED, settings.sources),
            log=lambda row, step: run.log_metrics({f"{name}.{key}": value for key, value in row.items()}, step),
        )
        encoder.save(output / name)
        return curve

    with (
        checkpoint_file("distill", f"{key}-student") as first,
        checkpoint_file("distill", f"{key}-continued") as second,
    ):
        curve = train_phase(schedule, first, "student", params.seed)
        save_file(dict(projection.state_dict()), output / "projection.safetensors")
        write_curve(output / "curve.csv", curve)
        train_phase(replace(schedule, steps=settings.continued_steps), second, "continued", params.seed + 1)
    save_file({name: torch.from_numpy(values) for name, values in static.items()}, output / "static.safetensors")


def _training_texts(params: Params) -> tuple[list[str], list[str], "np.ndarray"]:
    """Texts of both sides of the training pairs, the side of each, and their teacher vectors [N, T] float16."""
    import numpy as np

    from stages.corpus.tables import read_split
    from stages.corpus.vectors import VectorStore

    pairs = read_split(CURATED, "pairs", "train", params.distill.sources)
    store = VectorStore(EMBEDDED)
    texts: list[str] = []
    sides: list[str] = []
    vectors = []
    for side in ("query", "document"):
        of_side = pairs[side].to_pylist()
        texts += of_side
        sides += [side] * len(of_side)
        vectors.append(store.texts(params.embed.prompts[side], of_side))
    return texts, sides, np.concatenate(vectors)


def _student(
    params: Params, texts: list[str], sides: list[str], teacher: "np.ndarray"
) -> tuple["Encoder", dict[str, "np.ndarray"], "Texts"]:
    """The student before training, the static closed-form embedder (table, token weights), and the tokenised texts."""
    import numpy as np

    from stages.modeling import warm_start
    from stages.modeling.encoder import Encoder, EncoderSettings, load_backbone, load_encoder, load_tokenizer

    settings, shape = params.distill, params.distill.backbone
    how = EncoderSettings(settings.pooling, dict(settings.prompts), settings.max_tokens, settings.rope_theta)
    tokenizer, donor = load_tokenizer(shape.path), load_backbone(shape.path)
    table = warm_start.token_table(donor)
    # Only the tokenizer, prompts and cut of this encoder are used.
    data = _tokenised(Encoder(donor, tokenizer, replace(how, rope_theta=None)), texts, sides, teacher)
    token_ids = data.token_ids
    weights = warm_start.token_weights(token_ids, len(table))
    targets = teacher.astype(np.float32)
    mapping = (
        warm_start.ridge(
            warm_start.weighted_mean(table, weights, token_ids), targets, settings.warm_start.ridge_penalty
        )
        @ warm_start.principal_axes(targets)[:, : table.shape[1]]
    )
    static = {"table": (table @ mapping).astype(np.float16), "weights": weights.astype(np.float32)}
    if shape.architecture == "pretrained":
        return load_encoder(shape.path, how, shape.num_layers), static, data
    assert how.rope_theta is not None, "checked with the recipe"
    backbone = warm_start.eurobert(
        table,
        weights,
        mapping,
        tokenizer,
        **shape.model_dump(exclude={"path", "architecture"}),
        rope_theta=how.rope_theta,
    )
    return Encoder(backbone, tokenizer, how), static, data


def _tokenised(encoder: "Encoder", texts: list[str], sides: list[str], teacher: "np.ndarray") -> "Texts":
    import torch

    from stages.objectives.texts import Texts

    token_ids: list[list[int]] = []
    for side in dict.fromkeys(sides):
        token_ids += encoder.tokenize(
            [text for text, its_side in zip(texts, sides, strict=True) if its_side == side], side
        )
    return Texts(token_ids, torch.from_numpy(teacher))


def _sample(total: int, wanted: int, seed: int) -> "np.ndarray":
    import numpy as np

    return np.random.default_rng(seed).choice(total, min(wanted, total), replace=False)


def _embed(encoder: "Encoder", data: Any, rows: "np.ndarray") -> "np.ndarray":
    import numpy as np

    embeddings = np.empty((len(rows), encoder.dimensions), dtype=np.float32)
    for places, vectors in encoder.encode_batches([data.token_ids[row] for row in rows], batch_tokens=4096):
        embeddings[places] = vectors
    return embeddings


if __name__ == "__main__":
    main()
