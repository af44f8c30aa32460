"""Batches side by side on a CPU: a thread each, which beats many threads on one batch.

Threads that share a batch wait for each other after every operation and leave the small ones to one of them; with a
batch each they never do. A batch gives the same to the last bit however many run, as one thread computes it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results of `work` on each item, in order; as many run at once as torch has threads, each with one of them.

    While they run, torch computes with one thread in this one, too.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(max_workers=threads)
    torch.set_num_threads(1)  # threads that start later take it over
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
