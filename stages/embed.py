"""Embed: the frozen teacher embeds every curated text, once for each rule by which it reads the text.

The working store under .stillhouse/vectors outlives builds: after a kill, or with more rows, only what is missing is
embedded. data/embedded is the part of the store that this build reads, in order of key.
"""

if __name__ == "__main__":  # The entry checks the recipe before torch is imported.
    from stages.entry import run_stage

    run_stage("embed")

import shutil
from collections import defaultdict

import numpy as np
from tqdm import tqdm

from stages.corpus.text_sample import TextSample
from stages.modeling.truncation import refuse_truncation
from stages.recipe.paths import CURATED, EMBEDDED, VECTORS
from stages.recipe.recipe import Recipe
from stages.teachers.collection import only_writer
from stages.teachers.embedding import chunks, embed_here, embedding_jobs
from stages.teachers.loading import load_teacher
from stages.teachers.ray import embed_on_ray
from stages.teachers.teacher import ReadingRule, Teacher
from stages.teachers.teacher_inputs import read_inputs, teacher_inputs
from stages.teachers.vector_store import VectorStore
from stages.tracking.runs import stage_run

# Of more distinct texts than this, a sample of this size decides whether too many are cut.
SAMPLED_TEXTS = 200_000


def main(recipe: Recipe) -> None:
    """Run the stage."""
    with stage_run(stage="embed", params=recipe.model_dump(include={"name", "embed"}), inputs=[CURATED]) as run:
        run.log_metrics(embed(recipe))


def embed(recipe: Recipe) -> dict[str, float]:
    """Embed what the working store lacks and export this build's part of it.

    Returns:
        {texts, embedded, reused}: distinct texts, those embedded by this run, and those found from earlier runs.

    Raises:
        RuntimeError: a text is still without a vector, or another process writes to the store.
        ValueError: too many texts are cut, the teacher has fewer positions than it shall read, or a shard is damaged.
    """
    teacher = load_teacher(recipe.embed, recipe.engine)
    with only_writer(VECTORS):
        store = VectorStore(VECTORS / str(teacher.fingerprint["digest"]), teacher.fingerprint)
        keys = _distinct_keys(recipe, teacher, store)
        num_missing = int((~store.holds(keys)).sum())
        if num_missing:
            _embed_missing(recipe, teacher, store, num_missing)
        store.compact()
        if without_vector := int((~store.holds(keys)).sum()):
            raise RuntimeError(
                f"{without_vector} of {len(keys)} texts have no teacher vector after embedding; run again"
            )
        shutil.rmtree(EMBEDDED, ignore_errors=True)
        store.export(keys, EMBEDDED)
    return {"texts": len(keys), "embedded": num_missing, "reused": len(keys) - num_missing}


def _distinct_keys(recipe: Recipe, teacher: Teacher, store: VectorStore) -> np.ndarray:
    """Collect the distinct keys of all texts, and stop where too many texts are longer than the teacher reads."""
    sample: TextSample[ReadingRule] = TextSample(SAMPLED_TEXTS)
    keys = []
    inputs = teacher_inputs(recipe.curate, recipe.adapt, recipe.evaluate)
    for _, rule, texts in read_inputs(inputs, CURATED, recipe.embed):
        keys.append(store.keys(rule, texts))
        sample.add(rule, keys[-1], texts)
    lengths: dict[tuple[int, int], list[int]] = defaultdict(list)
    for rule, texts in sample.by_group().items():
        lengths[rule.max_tokens, rule.window_tokens] += teacher.token_counts(texts, rule.instruction) or []
    for (max_tokens, _), counts in sorted(lengths.items()):
        refuse_truncation(counts, max_tokens, recipe.embed.max_truncated_share, "embed")
    return np.unique(np.concatenate(keys))


def _embed_missing(recipe: Recipe, teacher: Teacher, store: VectorStore, num_missing: int) -> None:
    """Embed what the store lacks, in this process or on Ray, and add it shard by shard."""
    ray = recipe.embed.ray
    inputs = teacher_inputs(recipe.curate, recipe.adapt, recipe.evaluate)
    with tqdm(total=num_missing, desc="embed", unit="text") as bar:
        for chunk in chunks(read_inputs(inputs, CURATED, recipe.embed)):
            jobs = embedding_jobs(store, chunk, recipe.embed.max_tokens)
            embedded = embed_on_ray(teacher, jobs, ray, recipe.engine.threads) if ray else embed_here(teacher, jobs)
            for keys, vectors in embedded:
                store.add(keys, vectors)
                bar.update(len(keys))
            store.compact()
