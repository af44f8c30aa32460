"""Embedding on Ray Data: each job goes to one of several processes, and its vectors come back to this process.

Ray gives the job of a killed process to another. Only this process writes, so that each shard is written once. All
processes compute alike, so that no vector depends on which of them embedded it.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.recipe.embed import RayWorkers
from stages.teachers.embedding import EmbeddingJob
from stages.teachers.shards import KEY
from stages.teachers.teacher import ReadingRule, Teacher

STARTS = 3  # Attempts to start Ray.


class Worker:
    """A Ray actor that holds the teacher, which loads its weights when it first embeds."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Embed a job that came as a row; returns its keys and vectors."""
        rule = ReadingRule(row["instruction"], int(row["max_tokens"]), int(row["window_tokens"]), row["side"])
        return {"keys": row["keys"], "vectors": self.teacher.embed(list(row["texts"]), rule)}


def embed_on_ray(
    teacher: Teacher, jobs: Iterable[EmbeddingJob], section: RayWorkers, threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield keys [N] and vectors [N, T] of each job, in the order in which the jobs end.

    Args:
        threads: CPU threads of a worker.

    Raises:
        ModuleNotFoundError: the extra `ray` is not installed.
    """
    rows = [{"keys": job.keys.tobytes(), "texts": job.texts, **asdict(job.rule)} for job in jobs]
    if not rows:
        return
    data = start(section.workers * threads, section.workers * section.gpus)
    embedded = data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_args=(replace(teacher),),  # type: ignore[type-var]  # A copy without loaded weights.
        compute=data.ActorPoolStrategy(size=section.workers),
        num_cpus=threads,
        num_gpus=section.gpus,
    )
    for row in embedded.iter_rows():
        yield np.frombuffer(row["keys"], dtype=KEY), np.asarray(row["vectors"], dtype=np.float32)


def start(cpus: int, gpus: float) -> Any:
    """Return `ray.data`, connected to the cluster of RAY_ADDRESS or to a cluster that ends with this process.

    Raises:
        ModuleNotFoundError: the extra `ray` is not installed.
        ValueError: this machine has fewer GPUs, for which Ray would wait for ever.
    """
    own_cluster = not os.environ.get("RAY_ADDRESS")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if own_cluster:
        # Ray's switch for a cluster of one machine: all its processes listen on loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "embed.ray: got workers, but Ray is not installed; install it (pip install 'ray[data]~=2.60') or set "
            "embed.ray to null"
        ) from error
    import ray.data

    if ray.is_initialized():
        return ray.data
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if own_cluster else {}
    _init(ray, log_to_driver=False, logging_level="warning", runtime_env=_worker_environment(), **own)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if own_cluster and gpus > (here := ray.cluster_resources().get("GPU", 0)):
        ray.shutdown()
        raise ValueError(f"embed.ray: its workers take {gpus:g} GPUs, this machine has {here:g}; lower workers or gpus")
    return ray.data


def _worker_environment() -> dict[str, Any]:
    """Give workers on any machine this code and this working folder."""
    root, folder = str(Path(__file__).resolve().parents[2]), str(Path.cwd())
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {"env_vars": {"PYTHONPATH": path}, "worker_process_setup_hook": lambda: os.chdir(folder)}


def _init(ray: Any, **settings: Any) -> None:
    """Start Ray, again where a busy machine takes longer than the half minute that Ray gives its processes."""
    for attempt in range(STARTS):
        try:
            ray.init(**settings)
        except Exception as error:  # Ray raises no narrower class.
            if "timed out during startup" not in str(error) or attempt == STARTS - 1:
                raise
            ray.shutdown()
        else:
            return
