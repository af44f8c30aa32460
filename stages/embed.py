"""Embed: every curated text through the frozen teacher, once a way of reading it, into a content-addressed store.

The working store under .stillhouse/vectors outlives runs: after a kill, or with more rows, only what is missing is
embedded. data/embedded is the part of it that this build reads, in order of key. `python -m stages.embed --collect`
deletes from the working store what data/embedded does not hold.
"""

import argparse
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.recipe.recipe import Recipe, load

if TYPE_CHECKING:
    import numpy as np

    from stages.teachers.teacher import Teacher, Work
    from stages.teachers.teacher_inputs import Texts
    from stages.teachers.vector_store import Reading, VectorStore

CURATED = Path("data/curated")
OUTPUT = Path("data/embedded")
WORKING = Path(".stillhouse/vectors")
# What a kill loses at most: the rows of one working shard, a few seconds on two cores.
WORKING_SHARD_ROWS = 512
SHARD_ROWS = 65_536
# Curated rows whose missing texts are in memory together, to be embedded longest first.
CHUNK_ROWS = 2**18
# Of more texts than these, this many stand for all when those longer than the cut are counted.
COUNTED_TEXTS = 200_000


def main() -> None:
    """Run the stage, or collect garbage."""
    parser = argparse.ArgumentParser(prog="python -m stages.embed", description="Embed curated texts.")
    parser.add_argument(
        "--collect",
        action="store_true",
        help=f"delete vectors in {WORKING} that are not in {OUTPUT}, and embed nothing",
    )
    if parser.parse_args().collect:
        deleted, kept = collect(OUTPUT, WORKING)
        print(f"{WORKING}: {deleted} vectors deleted, {kept} kept, which {OUTPUT} holds")
        return
    params = load()
    from stages.tracking.runs import stage_run

    section = params.model_dump(include={"name", "embed"})
    with stage_run(stage="embed", params=section, inputs=[CURATED]) as run:
        run.log_metrics(embed(params, CURATED, OUTPUT, WORKING))


def embed(params: Recipe, curated: Path, output: Path, working: Path) -> dict[str, float]:
    """Bring the working store to full coverage and export this build's part.

    Returns:
        {texts, embedded, reused}: texts wanted, embedded by this run, and found from earlier ones.

    Raises:
        RuntimeError: a text is still without a vector, or another process writes to the store.
        ValueError: too many texts are longer than what the teacher reads of them, or that is more than it can read; or
            a shard is damaged.
    """
    from stages.teachers.vector_store import VectorStore

    teacher = load_teacher(params, working)
    with _only_writer(working):
        store = VectorStore(working / str(teacher.identity["digest"]), teacher.identity)
        keys = _wanted_keys(params, teacher, store, wanted(params, curated))
        num_missing = int((~store.holds(keys)).sum())
        if num_missing:
            _embed_missing(params, teacher, store, wanted(params, curated), num_missing)
        store.compact(SHARD_ROWS)
        if uncovered := int((~store.holds(keys)).sum()):
            raise RuntimeError(f"{uncovered} of {len(keys)} texts have no teacher vector after embedding; run again")
        shutil.rmtree(output, ignore_errors=True)
        store.export(keys, output, SHARD_ROWS)
    return {"texts": len(keys), "embedded": num_missing, "reused": len(keys) - num_missing}


def load_teacher(params: Recipe, working: Path) -> "Teacher":
    """The recipe's teacher; one behind an address leaves its probe in the working store."""
    settings, engine, teacher = params.embed, params.engine, params.embed.teacher
    if teacher.kind == "endpoint":
        from stages.teachers.endpoint import EndpointTeacher

        return EndpointTeacher(**teacher.model_dump(exclude={"kind"}), probes=working / "probes")
    window_tokens = min(settings.long.window_tokens, settings.long.max_tokens) if settings.long.sources else None
    shared: dict[str, Any] = {
        "instructions": tuple(settings.prompts.values()),
        "precision": engine.precision,
        "threads": engine.threads,
        "batch_tokens": settings.batch_tokens,
        "max_tokens": settings.max_tokens,
        "window_tokens": window_tokens,
    }
    if teacher.kind == "sentence_transformer":
        from stages.teachers.sentence_transformer import SentenceTransformerTeacher

        return SentenceTransformerTeacher(teacher.path, **shared)
    from stages.teachers.transformer import TransformerTeacher

    return TransformerTeacher(teacher.path, teacher.pooling, packing=engine.packing, **shared)


def wanted(params: Recipe, curated: Path) -> "Iterator[Texts]":
    """Texts by side (`query`, `document`, `clustering`) and by how the teacher reads them, a batch at a time."""
    from stages.teachers.teacher_inputs import wanted_columns, wanted_texts
    from stages.teachers.teacher_vectors import Readings

    readings = Readings(params.embed.prompts, params.embed.max_tokens, params.embed.long)
    wants = wanted_columns(
        {source.name: source.kind for source in params.curate.sources},
        left_out=params.evaluate.long.articles,
        pair_sources=params.adapt.text_matching.pair_sources,
        clustering_sources=params.adapt.clustering.sources,
    )
    return wanted_texts(curated, wants, readings)


def _wanted_keys(params: Recipe, teacher: "Teacher", store: "VectorStore", batches: "Iterable[Texts]") -> "np.ndarray":
    """Distinct keys of the wanted texts, once it is sure that not too many are cut."""
    import numpy as np

    from stages.corpus.text_sample import TextSample

    sample: TextSample[Reading] = TextSample(COUNTED_TEXTS)
    keys = []
    for _, reading, texts in batches:
        keys.append(store.keys(reading, texts))
        sample.add(reading, keys[-1], texts)
    _check_truncation(teacher, sample.by_group(), params.embed.max_truncated_share)
    return np.unique(np.concatenate(keys))


def _check_truncation(teacher: "Teacher", texts: "dict[Reading, list[str]]", max_share: float) -> None:
    from stages.modeling.truncation import refuse_truncation

    def cut(reading: "Reading") -> tuple[int, int]:
        return reading.max_tokens, reading.window_tokens

    for (max_tokens, _), readings in groupby(sorted(texts, key=cut), cut):
        counts = [teacher.token_counts(texts[reading], reading.instruction) for reading in readings]
        lengths = [length for of_reading in counts if of_reading is not None for length in of_reading]
        refuse_truncation(lengths, max_tokens, max_share, "embed")


def _embed_missing(
    params: Recipe, teacher: "Teacher", store: "VectorStore", batches: "Iterable[Texts]", num_missing: int
) -> None:
    """Embed what the store lacks and store it, shard by shard."""
    from tqdm import tqdm

    with tqdm(total=num_missing, desc="embed", unit="text") as bar:
        for chunk in _chunks(batches):
            for keys, vectors in _embedded(params, teacher, _works(store, chunk, params.embed.max_tokens)):
                store.add(keys, vectors)
                bar.update(len(keys))
            store.compact(SHARD_ROWS)


def _embedded(params: Recipe, teacher: "Teacher", works: "Iterator[Work]") -> "Iterator[tuple[np.ndarray, np.ndarray]]":
    """Keys and vectors of each work, from this process or from several."""
    from stages.teachers.teacher import embed_here

    settings = params.embed.ray
    if settings is None:
        return embed_here(teacher, works)
    from stages.teachers.ray import embed_on_ray

    return embed_on_ray(teacher, works, workers=settings.workers, threads=params.engine.threads, gpus=settings.gpus)


def _chunks(batches: "Iterable[Texts]") -> "Iterator[list[Texts]]":
    """Batches of about CHUNK_ROWS rows together: the same ones whatever the store holds already."""
    chunk: list[Texts] = []
    for batch in batches:
        chunk.append(batch)
        if sum(len(one.texts) for one in chunk) >= CHUNK_ROWS:
            yield chunk
            chunk = []
    yield chunk


def _works(store: "VectorStore", chunk: "list[Texts]", max_tokens: int) -> "Iterator[Work]":
    """What is missing of a chunk: texts of one side read in one way together, longest first."""
    from stages.teachers.shards import packed_keys
    from stages.teachers.teacher import Work

    missing: dict[bytes, tuple[str, Reading, str]] = {}
    for side, reading, texts in chunk:
        keys = store.keys(reading, texts)
        missing |= {
            key: (side, reading, text)
            for key, text, held in zip(keys, texts, store.holds(keys), strict=True)
            if not held
        }
    together: dict[tuple[str, Reading], list[bytes]] = {}
    for key, (side, reading, _) in missing.items():
        together.setdefault((side, reading), []).append(key)
    for (_, reading), alike in together.items():
        alike.sort(key=lambda key: len(missing[key][2]), reverse=True)
        # A shard is as much work, whether it is short texts or a few long ones.
        rows = max(1, WORKING_SHARD_ROWS * max_tokens // reading.max_tokens)
        for start in range(0, len(alike), rows):
            part = alike[start : start + rows]
            yield Work(packed_keys(part), reading, [missing[key][2] for key in part])


def collect(output: Path, working: Path) -> tuple[int, int]:
    """Delete from the working store what a build's part does not hold, and stores of other teachers.

    Returns:
        Vectors deleted and kept.

    Raises:
        ValueError: there is no build's part, so that nothing says what to keep.
    """
    from stages.teachers.vector_store import VectorStore

    build = VectorStore(output)
    deleted = kept = 0
    with _only_writer(working):
        for manifest in sorted(working.glob("*/manifest.json")):
            store = VectorStore(manifest.parent)
            if store.identity == build.identity:
                deleted += store.keep(build.all_keys(), SHARD_ROWS)
                kept += len(store)
            else:
                deleted += len(store)
                shutil.rmtree(manifest.parent)
    return deleted, kept


@contextmanager
def _only_writer(working: Path) -> Iterator[None]:
    """Hold the only right to write to the working store."""
    from filelock import FileLock, Timeout

    working.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(working / "writer.lock", timeout=0):
            yield
    except Timeout as error:
        raise RuntimeError(f"another process writes to {working}; wait for it or stop it") from error


if __name__ == "__main__":
    main()
