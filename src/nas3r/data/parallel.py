"""Work shared among processes that end cleanly when interrupted."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")

_GRACE_SECONDS = 3.0  # for a job to clean up after itself


def run_all(work: Callable[..., T], jobs: Sequence[tuple], workers: int) -> Iterator[T]:
    """Calls `work(*job)` for every job and gives the results as they come.

    On an error or Ctrl-C no further job is begun, the ones under way are given time to clean up, and the
    processes end.

    Args:
        work: A function at the top of a module (other processes import it).
        jobs: Its arguments.
        workers: Number of processes; with one, everything runs in this process, in order.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield work(*job)
        return
    context = multiprocessing.get_context("spawn")  # forking a process with threads (torch, FFmpeg) can hang
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_end_with_the_main_process
    )
    try:
        for future in as_completed([pool.submit(_work, work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise OSError("a worker process was killed, most likely for lack of memory: use fewer") from error
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# Set in a worker that has been told to end: the executor turns the exit of one job into its result and would
# begin the next.
_ending = threading.Event()


def _work(work: Callable[..., T], job: tuple) -> T:
    if _ending.is_set():
        raise SystemExit(1)
    return work(*job)


def _end_with_the_main_process() -> None:
    """Workers leave Ctrl-C to the main process; they clean up and end when it tells them to, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_watch_main_process, daemon=True).start()


def _watch_main_process() -> None:
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os.kill(os.getpid(), signal.SIGTERM)  # reaches the thread that works
        time.sleep(_GRACE_SECONDS)
        os._exit(1)  # it waits for the next job now, which nobody will send


def _end(number: int, frame: object) -> None:
    _ending.set()
    raise SystemExit(1)
