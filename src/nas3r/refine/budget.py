"""How long a refinement may take."""

import math
import time
from collections.abc import Callable, Iterator


class Budget:
    """Counts steps or seconds; everything between two calls is paid for in seconds.

    Attributes:
        reserve: Seconds that are held back for what has to be done after the last step.
    """

    def __init__(
        self,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        if (steps is not None and steps < 1) or (seconds is not None and not seconds > 0):
            raise ValueError(f"budget: expected positive steps or seconds, got {steps} and {seconds}")
        self.max_steps, self.max_seconds = steps, seconds
        self.steps = 0
        self.reserve = 0.0
        self._start = time.monotonic()
        self._on_progress = on_progress

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """Fraction spent, of the limit that is nearer."""
        by_steps = self.steps / self.max_steps if self.max_steps else 0.0
        if not self.max_seconds:
            return min(by_steps, 1.0)
        time_left = self.max_seconds - self.reserve
        by_time = self.seconds / time_left if time_left > 0 else 1.0
        return min(max(by_steps, by_time), 1.0)

    def until(self, end: float) -> Iterator[float]:
        """Steps until the fraction `end` is spent; yields how far along each one is, in [0, 1)."""
        begin = self.progress
        longest = 0.0  # the last step of all must end in time, not begin in time
        while (now := self.progress) < end and (end < 1 or not self._too_late(longest)):
            started = self.seconds
            yield (now - begin) / (end - begin)
            longest = max(longest, self.seconds - started)
            self.steps += 1
            if self._on_progress is not None:
                self._on_progress(self.progress)

    def _too_late(self, step: float) -> bool:
        """Whether a step of so many seconds would end after the limit."""
        return self.max_seconds is not None and self.seconds + step > self.max_seconds - self.reserve


def decay(fraction: float) -> float:
    """Factor of the step sizes within a stage: half a cosine from 1 to 0.1."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * fraction))
