"""Teachers on Ray Data: each work goes to one of several processes, and its vectors come back here to be stored.

A work whose process is killed goes to another one. Only this process writes, so a shard is written once; which process
embedded it does not show, as all compute alike.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.teachers.shards import KEY
from stages.teachers.teacher import Teacher, Work
from stages.teachers.vector_store import Reading

STARTS = 3


class Worker:
    """What a Ray actor holds: the teacher, loaded when it first embeds."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A work as a row -> its keys and vectors."""
        reading = Reading(row["instruction"], int(row["max_tokens"]), int(row["window_tokens"]))
        return {"keys": row["keys"], "vectors": self.teacher.embed(list(row["texts"]), reading)}


def embed_on_ray(
    teacher: Teacher, works: Iterable[Work], *, workers: int, threads: int, gpus: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Keys [N] and vectors [N, T] of each work, in the order in which they are done.

    Args:
        threads: CPU threads of a worker.
        gpus: of a worker; several share one below 1.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """
    rows = [
        {
            "keys": work.keys.tobytes(),
            "texts": work.texts,
            "instruction": work.reading.instruction,
            "max_tokens": work.reading.max_tokens,
            "window_tokens": work.reading.window_tokens,
        }
        for work in works
    ]
    if not rows:
        return
    data = start(workers * threads, workers * gpus)
    embedded = data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_args=(replace(teacher),),  # type: ignore[type-var]  # every teacher is a dataclass
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=threads,
        num_gpus=gpus,
    )
    for row in embedded.iter_rows():
        yield np.frombuffer(row["keys"], dtype=KEY), np.asarray(row["vectors"], dtype=np.float32)


def start(cpus: int, gpus: float) -> Any:
    """`ray.data`, connected to the cluster of RAY_ADDRESS or to one of this process alone, which ends with it.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: this machine has fewer GPUs; Ray would wait for more for ever.
    """
    own_cluster = not os.environ.get("RAY_ADDRESS")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if own_cluster:
        # Ray's own switch for a cluster of one machine, whatever it runs on: all of it listens on loopback.
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
    _init(ray, log_to_driver=False, logging_level="warning", runtime_env=_like_here(), **own)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if own_cluster and gpus > (here := ray.cluster_resources().get("GPU", 0)):
        ray.shutdown()
        raise ValueError(f"embed.ray: its workers take {gpus:g} GPUs, this machine has {here:g}; lower workers or gpus")
    return ray.data


def _like_here() -> dict[str, Any]:
    """What a worker on any machine has: this code, and relative paths that lead where they lead here."""
    root, folder = str(Path(__file__).resolve().parents[2]), str(Path.cwd())
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {"env_vars": {"PYTHONPATH": path}, "worker_process_setup_hook": lambda: os.chdir(folder)}


def _init(ray: Any, **settings: Any) -> None:
    """Ray's start, again where the machine was too busy for it: Ray gives its own processes half a minute."""
    for attempt in range(STARTS):
        try:
            ray.init(**settings)
        except Exception as error:  # Ray raises nothing narrower
            if "timed out during startup" not in str(error) or attempt == STARTS - 1:
                raise
            ray.shutdown()
        else:
            return
