"""How long work tells how far it is, and how long it took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds that its body takes to those of a stage.

    Args:
        seconds: Of all stages by name.
        name: Of this one.
    """
    start = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 3)
