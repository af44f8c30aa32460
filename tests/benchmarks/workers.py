"""Speed of the default teacher on Ray: two workers of one thread each against one worker."""

import time
from collections.abc import Sequence

import numpy as np
import ray

from stages.recipe.embed import RayWorkers, TransformerFolder
from stages.recipe.recipe import read
from stages.teachers.embedding import EmbeddingJob
from stages.teachers.ray import embed_on_ray
from stages.teachers.shards import KEY
from stages.teachers.teacher import ReadingRule
from stages.teachers.transformer import TransformerTeacher
from tests.benchmarks.measure import Figure
from tests.benchmarks.texts import TEACHER
from tests.checkouts import ROOT

JOB_TEXTS = 50
RULE = ReadingRule("", 96, 96)


def ray_scaling(texts: Sequence[str], teacher: str = TEACHER) -> dict[str, Figure]:
    """Texts a second with two workers over those with one, counted once every worker has given a job back.

    The time to start Ray and to load the teacher, which does not depend on the number of texts, is left out.
    """
    one, two = (_rate(texts, teacher, workers) for workers in (1, 2))
    return {
        "ray_scaling": Figure(two / one, "", target=">= 1.7"),
        "ray_texts_per_second": Figure(two, "texts/s"),
    }


def _rate(texts: Sequence[str], teacher: str, workers: int) -> float:
    recipe = read(ROOT / "params.yaml")
    section = recipe.embed.model_copy(update={"batch_tokens": 3072})
    engine = recipe.engine.model_copy(update={"packing": False, "threads": 1})
    model = TransformerTeacher(TransformerFolder(kind="transformer", path=teacher, pooling="mean"), section, engine)
    keys = np.arange(len(texts) * 2, dtype=np.uint64).view(KEY)
    jobs = [
        EmbeddingJob(keys[start : start + JOB_TEXTS], RULE, list(texts[start : start + JOB_TEXTS]))
        for start in range(0, len(texts), JOB_TEXTS)
    ]
    embedded = embed_on_ray(model, jobs, RayWorkers(workers=workers, gpus=0), threads=1)
    done = [(time.perf_counter(), len(keys)) for keys, _ in embedded]
    ray.shutdown()  # The next workers would share the processors of these.
    started, ended = done[workers - 1][0], done[-1][0]
    return sum(rows for _, rows in done[workers:]) / (ended - started)
