"""Devices of this machine, shared between rebuilds: a stage holds as many as its processes, and no two hold the same.

A Prefect limit says how many stages may run at once on all machines; which device of this one a stage gets is decided
here, by file locks, which the kernel lets go when their holder dies. Where a stage works without a GPU its devices are
cores, one for each of its threads: stages that share cores stall each other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.process_group import STOP, Stopped

LOOK_SECONDS = 1.0
CORE = "cpu-"  # begins a core's name; GPUs have other ones


def cores() -> tuple[str, ...]:
    """The cores of this machine."""
    return tuple(f"{CORE}{number}" for number in range(os.cpu_count() or 1))


@contextmanager
def held_devices(
    devices: Sequence[str], number: int, locks: Path, waiting: Callable[[], None]
) -> Iterator[tuple[str, ...]]:
    """Hold `number` of the devices, waiting until so many are free; none where there are none to hold.

    Args:
        devices: GPUs as CUDA_VISIBLE_DEVICES names them, or cores.
        locks: folder that every rebuild on this machine uses.
        waiting: called once when it has to wait.

    Raises:
        ValueError: more are asked for than there are.
        Stopped: the rebuild has to end.
    """
    if not devices:
        yield ()
        return
    if number > len(devices):
        raise ValueError(
            f"a stage needs {number} devices of each machine (engine.processes), the rebuild was given {len(devices)}: "
            f"{list(devices)}; give it more devices or machines, or the recipe fewer processes"
        )
    locks.mkdir(parents=True, exist_ok=True)
    told = False
    with ExitStack() as holding:
        while len(taken := _take(devices, number, locks, holding)) < number:
            holding.close()
            if not told:
                waiting()
                told = True
            if STOP.wait(LOOK_SECONDS):
                raise Stopped("the rebuild was told to end while it waited for a device")
        yield taken


def _take(devices: Sequence[str], number: int, locks: Path, holding: ExitStack) -> tuple[str, ...]:
    """Lock up to `number` free devices; the caller lets them go again if they are too few."""
    taken: list[str] = []
    for device in devices:
        if len(taken) == number:
            break
        lock = FileLock(locks / f"{device}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        holding.callback(lock.release)
        taken.append(device)
    return tuple(taken)
