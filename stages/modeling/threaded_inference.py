"""Inference on a CPU with one batch for each thread, which is faster than many threads on one batch.

Threads that share a batch wait for each other after every operation. A batch gives the same to the last bit however
many batches run at once, because one thread computes it.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items of each thread that are begun before their result is asked for, so that no thread waits for a slow item.
AHEAD = 2


def map_in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of `work` on each item, in order; as many items run at once as torch has threads.

    Meanwhile torch uses one thread in the calling thread too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def submit(item: Item) -> Future[Result]:
        return _pool(threads).submit(work, item)

    remaining = iter(items)
    waiting = deque(map(submit, itertools.islice(remaining, AHEAD * threads)))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(map(submit, itertools.islice(remaining, 1)))
            yield result
    finally:
        wait([future for future in waiting if not future.cancel()])
        torch.set_num_threads(threads)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Keep the threads: the memory that a new thread allocates is brought in page by page, a fifth of a short batch.

    Each thread takes over torch's number of threads, which is one, when it first computes.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="inference")
