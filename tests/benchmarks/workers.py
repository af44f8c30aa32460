"""The default teacher on Ray: two workers of one thread each against one."""

import time
from collections.abc import Sequence

import numpy as np
import ray

from stages.teachers.ray import embed_on_ray
from stages.teachers.shards import KEY
from stages.teachers.teacher import Work
from stages.teachers.transformer import TransformerTeacher
from stages.teachers.vector_store import Reading
from tests.benchmarks.measure import Figure
from tests.benchmarks.texts import TEACHER

WORK_TEXTS = 50
READING = Reading("", 96, 96)


def ray_scaling(texts: Sequence[str], teacher: str = TEACHER) -> dict[str, Figure]:
    """Texts a second with two workers over those with one, both once every worker has given a work back.

    Starting Ray and loading the teacher are outside of the clock: they take as long however much there is to embed.
    """
    one, two = (_rate(texts, teacher, workers) for workers in (1, 2))
    return {
        "ray_scaling": Figure(two / one, "", target=">= 1.7"),
        "ray_texts_per_second": Figure(two, "texts/s"),
    }


def _rate(texts: Sequence[str], teacher: str, workers: int) -> float:
    model = TransformerTeacher(teacher, "mean", ("",), 96, None, "float32", False, 1, 3072)
    keys = np.arange(len(texts) * 2, dtype=np.uint64).view(KEY)
    works = [
        Work(keys[start : start + WORK_TEXTS], READING, list(texts[start : start + WORK_TEXTS]))
        for start in range(0, len(texts), WORK_TEXTS)
    ]
    done = [
        (time.perf_counter(), len(found)) for found, _ in embed_on_ray(model, works, workers=workers, threads=1, gpus=0)
    ]
    ray.shutdown()  # else the next workers would share its processors, which are as many as these workers'
    started, ended = done[workers - 1][0], done[-1][0]
    return sum(rows for _, rows in done[workers:]) / (ended - started)
