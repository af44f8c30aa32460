"""The devices of this machine: a stage holds as many as it has processes, and no two stages hold the same device.

A Prefect limit says how many stages may run at once on all machines. File locks decide which device of this machine a
stage gets; the kernel releases them when their holder dies. The devices of a stage without a GPU are cores, one for
each thread, because stages that share cores stall each other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.process_group import STOP, Stopped

LOOK_SECONDS = 1.0
CORE = "cpu-"  # prefix of a core's name; no GPU has it


def cores() -> tuple[str, ...]:
    """Names of this machine's cores."""
    return tuple(f"{CORE}{number}" for number in range(os.cpu_count() or 1))


@contextmanager
def held_devices(
    devices: Sequence[str], number: int, locks: Path, waiting: Callable[[], None]
) -> Iterator[tuple[str, ...]]:
    """Hold `number` of the devices and wait until so many are free; hold none where `devices` is empty.

    Args:
        devices: GPUs as CUDA_VISIBLE_DEVICES names them, or cores.
        locks: folder that every rebuild on this machine uses.
        waiting: called once if the stage has to wait.

    Raises:
        ValueError: `number` is larger than the number of devices.
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
    announced = False
    with ExitStack() as holding:
        while len(taken := _take(devices, number, locks, holding)) < number:
            holding.close()
            if not announced:
                waiting()
                announced = True
            if STOP.wait(LOOK_SECONDS):
                raise Stopped("the rebuild was told to end while it waited for a device")
        yield taken


def _take(devices: Sequence[str], number: int, locks: Path, holding: ExitStack) -> tuple[str, ...]:
    """Lock up to `number` free devices; the caller releases them if they are too few."""
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
