"""The work of embedding: which texts the store lacks, in jobs for the teacher.

Shapes: N texts of a job, T teacher dimension.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.teachers.shards import packed_keys
from stages.teachers.teacher import ReadingRule, Teacher
from stages.teachers.teacher_inputs import TextBatch
from stages.teachers.vector_store import VectorStore

# Rows of a working shard, the most that a kill loses: a few seconds of work on two cores.
WORKING_SHARD_ROWS = 512
# Curated rows whose missing texts are in memory together, to be embedded longest first.
CHUNK_ROWS = 2**18


@dataclass(frozen=True)
class EmbeddingJob:
    """Texts read by one rule that are embedded together and become one working shard."""

    keys: np.ndarray
    rule: ReadingRule
    texts: list[str]


def chunks(batches: Iterable[TextBatch]) -> Iterator[list[TextBatch]]:
    """Group batches into chunks of about CHUNK_ROWS rows, which do not depend on what the store holds."""
    chunk: list[TextBatch] = []
    for batch in batches:
        chunk.append(batch)
        if sum(len(part.texts) for part in chunk) >= CHUNK_ROWS:
            yield chunk
            chunk = []
    yield chunk


def embedding_jobs(store: VectorStore, chunk: Iterable[TextBatch], max_tokens: int) -> Iterator[EmbeddingJob]:
    """Yield jobs for the texts of a chunk that the store lacks: by side and rule, longest texts first.

    Args:
        max_tokens: tokens of a text that is not long. Jobs of longer texts have fewer rows, so that each job is about
            as much work.
    """
    missing: dict[bytes, tuple[str, ReadingRule, str]] = {}
    for side, rule, texts in chunk:
        keys = store.keys(rule, texts)
        held = store.holds(keys)
        missing |= {key: (side, rule, text) for key, text, here in zip(keys, texts, held, strict=True) if not here}
    groups: dict[tuple[str, ReadingRule], list[bytes]] = defaultdict(list)
    for key, (side, rule, _) in missing.items():
        groups[side, rule].append(key)
    for (_, rule), group in groups.items():
        group.sort(key=lambda key: len(missing[key][2]), reverse=True)
        rows = max(1, WORKING_SHARD_ROWS * max_tokens // rule.max_tokens)
        for start in range(0, len(group), rows):
            part = group[start : start + rows]
            yield EmbeddingJob(packed_keys(part), rule, [missing[key][2] for key in part])


def embed_here(teacher: Teacher, jobs: Iterable[EmbeddingJob]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embed jobs one after another in this process; yields the keys [N] and vectors [N, T] of each."""
    for job in jobs:
        yield job.keys, teacher.embed(job.texts, job.rule)
