"""Batches side by side on a CPU: a thread each, which beats many threads on one batch.

Threads that share a batch wait for each other after every operation and leave the small ones to one of them; with a
batch each they never do. A batch gives the same to the last bit however many run, as one thread computes it.
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

# Items begun or done before their turn, for each thread: enough that none waits for a slow one before it.
AHEAD = 2


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results of `work` on each item, in order; as many run at once as torch has threads, each with one of them.

    While they run, torch computes with one thread in this one, too.
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
    """Threads that stay: what memory a new one allocates has to be brought in page by page, a fifth of a short batch.

    Each takes over torch's number of threads when it first computes, which is one.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="side_by_side")
