"""Embed: every curated text through the frozen teacher, once a way of reading it, into a content-addressed store.

The working store under .stillhouse/vectors outlives runs: after a kill, or with more rows, only what is missing is
embedded. data/embedded is the part of it that this build reads, in order of key.
"""

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stages.params import Params, load

if TYPE_CHECKING:
    from stages.corpus.vectors import Reading, VectorStore
    from stages.modeling.encoder import Encoder

CURATED = Path("data/curated")
OUTPUT = Path("data/embedded")
WORKING = Path(".stillhouse/vectors")
# What a kill loses at most: the rows of one working shard, a few seconds on two cores.
WORKING_SHARD_ROWS = 512
SHARD_ROWS = 65_536


def main() -> None:
    """Run the stage."""
    params = load()
    from stages.training.tracking import stage_run

    section = params.model_dump(include={"name", "embed"})
    with stage_run(stage="embed", params=section, inputs=[CURATED]) as run:
        run.log_metrics(embed(params, CURATED, OUTPUT, WORKING))


def embed(params: Params, curated: Path, output: Path, working: Path) -> dict[str, float]:
    """Bring the working store to full coverage and export this build's part.

    Returns:
        {texts, embedded, reused}: texts wanted, embedded by this run, and found from earlier ones.

    Raises:
        RuntimeError: a text is still without a vector.
        ValueError: too many texts are longer than what the teacher reads of them, or that is more than it can read.
    """
    import torch

    from stages.corpus.vectors import VectorStore
    from stages.modeling.backbones import take_length
    from stages.modeling.encoder import EncoderSettings, load_encoder, place
    from stages.modeling.identity import teacher_identity

    torch.set_num_threads(params.engine.threads)
    settings, engine = params.embed, params.engine
    teacher = load_encoder(
        settings.teacher, EncoderSettings(settings.pooling, dict(settings.prompts), settings.max_tokens)
    )
    if settings.long.sources:
        take_length(teacher.backbone, min(settings.long.window_tokens, settings.long.max_tokens))
    place(teacher, precision=engine.precision, packing=engine.packing)
    identity = teacher_identity(settings.teacher, settings.pooling, engine.precision)
    store = VectorStore(working / str(identity["digest"]), identity)
    texts = wanted_texts(params, curated)
    _check_truncation(params, teacher, texts)
    keys = {
        store.key(reading, text): (side, reading, text)
        for (side, reading), of_side in texts.items()
        for text in of_side
    }
    missing = {key: wanted for key, wanted in keys.items() if key not in store}
    _embed_missing(teacher, store, missing, settings.batch_tokens)
    if uncovered := sum(key not in store for key in keys):
        raise RuntimeError(f"{uncovered} of {len(keys)} texts have no teacher vector after embedding; run again")
    shutil.rmtree(output, ignore_errors=True)
    store.export(keys, output, SHARD_ROWS)
    return {"texts": len(keys), "embedded": len(missing), "reused": len(keys) - len(missing)}


def wanted_texts(params: Params, curated: Path) -> "dict[tuple[str, Reading], list[str]]":
    """Distinct texts by side (`query`, `document`, `clustering`) and by how the teacher reads them."""
    from stages.corpus.readings import Readings
    from stages.corpus.tables import SPLITS, read_table
    from stages.corpus.wanted import wanted_columns

    readings = Readings(params.embed.prompts, params.embed.max_tokens, params.embed.long)
    wanted: dict[tuple[str, Reading], dict[str, None]] = {}
    for want in wanted_columns(
        {source.name: source.kind for source in params.curate.sources},
        left_out=params.evaluate.long.articles,
        pair_sources=params.adapt.text_matching.pair_sources,
        clustering_sources=params.adapt.clustering.sources,
    ):
        for source, split in itertools.product(want.sources, SPLITS):
            texts = read_table(curated / want.kind / f"{split}.parquet", [source])[want.column].to_pylist()
            wanted.setdefault((want.side, readings.of(want.side, source)), {}).update(dict.fromkeys(texts))
    return {read: list(texts) for read, texts in wanted.items()}


def _check_truncation(params: Params, teacher: "Encoder", texts: "dict[tuple[str, Reading], list[str]]") -> None:
    from stages.modeling.truncation import check_truncation

    for max_tokens, window_tokens in sorted({(reading.max_tokens, reading.window_tokens) for _, reading in texts}):
        by_side = {
            side: of_side
            for (side, reading), of_side in texts.items()
            if (reading.max_tokens, reading.window_tokens) == (max_tokens, window_tokens)
        }
        check_truncation(teacher, by_side, max_tokens, params.embed.max_truncated_share, "embed")


def _embed_missing(
    teacher: "Encoder", store: "VectorStore", missing: "dict[bytes, tuple[str, Reading, str]]", batch_tokens: int
) -> None:
    """Embed texts read in one way together, longest first, and store them shard by shard."""
    from tqdm import tqdm

    from stages.modeling.truncation import encode_windows

    keys: dict[tuple[str, Reading], list[bytes]] = {}
    for key, (side, reading, _) in missing.items():
        keys.setdefault((side, reading), []).append(key)
    with tqdm(total=len(missing), desc="embed", unit="text") as bar:
        for (side, reading), of_reading in keys.items():
            of_reading.sort(key=lambda key: len(missing[key][2]), reverse=True)
            # A shard is as much work, whether it is short texts or a few long ones.
            rows = max(1, WORKING_SHARD_ROWS * teacher.settings.max_tokens // reading.max_tokens)
            for start in range(0, len(of_reading), rows):
                part = of_reading[start : start + rows]
                texts = [missing[key][2] for key in part]
                cut = (reading.max_tokens, reading.window_tokens)
                store.add(part, encode_windows(teacher, texts, side, *cut, batch_tokens))
                bar.update(len(part))


if __name__ == "__main__":
    main()
