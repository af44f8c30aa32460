"""Embed: every curated text through the frozen teacher, once per instruction, into a content-addressed store.

The working store under .stillhouse/vectors outlives runs: after a kill, or with more rows, only what is missing is
embedded. data/embedded is the part of it that this build reads, in order of key.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.params import Params, load

if TYPE_CHECKING:
    import numpy as np

    from stages.corpus.vectors import VectorStore
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
    """
    import torch

    from stages.corpus.vectors import VectorStore
    from stages.modeling.encoder import EncoderSettings, load_encoder
    from stages.modeling.identity import teacher_identity

    torch.set_num_threads(params.engine.threads)
    settings = params.embed
    teacher = load_encoder(
        settings.teacher, EncoderSettings(settings.pooling, dict(settings.prompts), settings.max_tokens)
    )
    identity = teacher_identity(settings.teacher, settings.pooling, settings.max_tokens)
    store = VectorStore(working / str(identity["digest"]), identity)
    texts = wanted_texts(params, curated)
    keys = {
        store.key(settings.prompts[side], text): (side, text)
        for side, side_texts in texts.items()
        for text in side_texts
    }
    missing = [(key, side, text) for key, (side, text) in keys.items() if key not in store]
    _embed_missing(teacher, store, missing, settings.batch_tokens)
    if uncovered := sum(key not in store for key in keys):
        raise RuntimeError(f"{uncovered} of {len(keys)} texts have no teacher vector after embedding; run again")
    shutil.rmtree(output, ignore_errors=True)
    store.export(keys, output, SHARD_ROWS)
    return {"texts": len(keys), "embedded": len(missing), "reused": len(keys) - len(missing)}


def wanted_texts(params: Params, curated: Path) -> dict[str, list[str]]:
    """Distinct texts under each of the teacher's instructions: `query`, `document` and `clustering`.

    Retrieval pairs are read as query and document; text matching reads both sides as documents, clustering both sides
    under its own instruction.
    """
    from stages.corpus.tables import SCHEMAS, SPLITS, read_table

    wanted: dict[str, dict[str, None]] = {"query": {}, "document": {}, "clustering": {}}

    def want(kind: str, column: str, side: str, sources: tuple[str, ...] | None = None) -> None:
        for split in SPLITS:
            table = read_table(curated / kind / f"{split}.parquet", sources)
            wanted[side].update(dict.fromkeys(table[column].to_pylist()))

    for kind in SCHEMAS:
        for column in {"pairs": ("document",), "scored": ("text_a", "text_b"), "labelled": ("text",)}[kind]:
            want(kind, column, "document")
    want("pairs", "query", "query")
    want("pairs", "query", "document", params.adapt.text_matching.pair_sources)
    for column in ("query", "document"):
        want("pairs", column, "clustering", params.adapt.clustering.sources)
    return {side: list(texts) for side, texts in wanted.items()}


def _embed_missing(
    teacher: "Encoder", store: "VectorStore", missing: list[tuple[bytes, str, str]], batch_tokens: int
) -> None:
    from tqdm import tqdm

    from stages.corpus.vectors import chunks

    if not missing:
        return
    token_ids: list[list[int]] = []
    for side, group in itertools.groupby(missing, key=lambda one: one[1]):
        token_ids += teacher.tokenize([text for _, _, text in group], side)

    def batches() -> Iterator[tuple[list[bytes], "np.ndarray"]]:
        for rows, vectors in teacher.encode_batches(token_ids, batch_tokens):
            yield [missing[row][0] for row in rows], vectors

    with tqdm(total=len(missing), desc="embed", unit="text") as bar:
        for keys, vectors in chunks(batches(), WORKING_SHARD_ROWS):
            store.add(keys, vectors)
            bar.update(len(keys))


if __name__ == "__main__":
    main()
