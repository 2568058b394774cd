"""Threads for compiled kernels that release the GIL.

Kernels run on torch's own OpenMP threads. After each operation of torch these keep their cores busy for some
milliseconds, waiting for more work; other threads would have to share the cores with them. Where OpenMP
cannot be used, a pool of Python threads stands in.

Numba's own parallel loops are not used: their default threading layer ends the process when two Python
threads render at once, or after a fork. The number of threads follows `torch.set_num_threads` and
`OMP_NUM_THREADS`.
"""

import ctypes
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

_TASKS_PER_THREAD = 16  # evens out tasks of unequal cost
_IMPORTED_IN = os.getpid()
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

    if _OPENMP is None or _may_be_forked():
        _run_in_pool(work, threads)
    else:
        _run_in_openmp(work, threads)


_OPENMP_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _find_openmp() -> Callable[..., None] | None:
    """What a compiler calls for `#pragma omp parallel`, in the library that torch is linked to; else None."""
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    parallel.argtypes = _OPENMP_WORK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    parallel.restype = None
    return parallel


_OPENMP = _find_openmp()


def _may_be_forked() -> bool:
    """OpenMP would wait forever for threads that did not survive a fork."""
    return os.getpid() != _IMPORTED_IN or multiprocessing.parent_process() is not None


def _run_in_openmp(work: Callable[[], None], threads: int) -> None:
    """Calls `work` from this thread and from those with which torch helps it, `threads` in all."""
    assert _OPENMP is not None
    errors: list[BaseException] = []

    def catch(_: Any) -> None:
        try:
            work()
        except BaseException as error:  # cannot pass through OpenMP
            errors.append(error)

    _OPENMP(_OPENMP_WORK(catch), None, threads, 0)
    if errors:
        raise errors[0]


def _run_in_pool(work: Callable[[], None], threads: int) -> None:
    """Calls `work` from this thread and from those of a pool, `threads` in all."""
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
