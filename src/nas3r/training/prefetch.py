"""Prepares batches ahead in threads, addressed by step."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from nas3r.training.trainer import Loader


class Prefetcher:
    """Gives the same batches as the loader it wraps, prepared while earlier steps compute.

    Decoding, the compiled kernels and torch release the interpreter lock, so threads do.

    Use it in a `with` statement, which ends the threads.

    Args:
        loader: Called from several threads at once if there are several workers.
        workers: Number of threads; 0 prepares each batch when it is asked for.
        ahead: Number of batches prepared ahead.
        last: No batch from this step on is prepared; None for no limit.
    """

    def __init__(self, loader: Loader, workers: int, ahead: int = 4, last: int | None = None) -> None:
        self._loader, self._ahead, self._last = loader, ahead, last
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="nas3r-batches") if workers else None
        self._pending: dict[int, Future[Any]] = {}

    def batch(self, step: int) -> Any:
        """The batch of a step."""
        if self._pool is None:
            return self._loader.batch(step)
        stop = step + self._ahead + 1 if self._last is None else min(step + self._ahead + 1, self._last)
        for number in range(step, max(stop, step + 1)):
            if number not in self._pending:
                self._pending[number] = self._pool.submit(self._loader.batch, number)
        result = self._pending.pop(step).result()
        for number in [n for n in self._pending if n < step]:  # left behind when steps were jumped over
            self._pending.pop(number).cancel()
        return result

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
