"""Threads for compiled kernels that release the GIL.

Numba's own parallel loops are not used: their default threading layer ends the process when two Python
threads render at once, or after a fork. These threads follow `torch.set_num_threads` and `OMP_NUM_THREADS`.
"""

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

_TASKS_PER_THREAD = 16  # evens out tasks of unequal cost
_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def parallel_for(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Runs `kernel(start, stop, *arguments)` over a partition of range(count), on as many threads as torch.

    Args:
        kernel: Releases the GIL; its result must not depend on how the range is cut.
        count: Number of items.
        arguments: Passed on.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        if count:
            kernel(0, count, *arguments)
        return
    tasks = min(threads * _TASKS_PER_THREAD, count)
    bounds = [count * i // tasks for i in range(tasks + 1)]
    ranges = iter(list(itertools.pairwise(bounds)))

    def work() -> None:
        for start, stop in ranges:  # one `next` is atomic under the GIL
            kernel(start, stop, *arguments)

    pool = _pool(threads - 1)
    futures: list[Future[None]] = [pool.submit(work) for _ in range(threads - 1)]
    work()
    for future in futures:
        future.result()


def _pool(workers: int) -> ThreadPoolExecutor:
    """A pool for this process: threads do not survive a fork."""
    key = (os.getpid(), workers)
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="nas3r-render")
        return _pools[key]
