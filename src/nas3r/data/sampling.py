"""Which frames of a clip become a training sample: a pure function of the seed, the step and the clip.

The context views span a gap that grows during training (a curriculum), the targets lie between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class GapSchedule:
    """Least and largest gap between the first and last context frame, in frames.

    Each bound g grows as min(g_start + int((g_end - g_start) * step / warm_up), g_end), as in the published
    training ("From None to All", configuration of the view sampler).

    Attributes:
        start: Least and largest gap at step 0.
        end: The same from step `warm_up` on.
        warm_up: Number of steps over which the gaps grow; 0 begins with `end`.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    warm_up: int

    def __post_init__(self) -> None:
        _check_bounds(self.start, self.end, self.warm_up, smallest=1)

    def bounds(self, step: int) -> tuple[int, int]:
        """Least and largest gap at a step."""
        if self.warm_up == 0:
            return self.end
        low, high = (
            min(start + int((end - start) * step / self.warm_up), end)
            for start, end in zip(self.start, self.end)
        )
        return low, high

    def draw(self, length: int, step: int, least: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """First and last context frame, uniform over gaps and then over places.

        Args:
            length: Number of frames of the clip.
            step: Training step.
            least: Smallest gap that leaves room for the other views of the sample; it takes the place of
                smaller gaps of the schedule.
            rng: Source of randomness.

        Returns:
            Their indices, or None if the clip is too short at this step.
        """
        low, high = self.bounds(step)
        low, high = max(low, least), min(max(high, least), length - 1)
        if high < low:
            return None
        gap = int(rng.integers(low, high + 1))
        left = int(rng.integers(0, length - gap))
        return left, left + gap


@dataclass(frozen=True)
class MotionSchedule:
    """Like `GapSchedule`, by how far the image moved between the context frames instead of by their number.

    The motion is what `nas3r.data.analysis.travel` measures: the path length of the image content, in image
    widths. A slow pan and a fast walk then start equally easy.

    Attributes:
        start: Least and largest motion at step 0.
        end: The same from step `warm_up` on.
        warm_up: Number of steps over which the motion grows; 0 begins with `end`.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    warm_up: int

    def __post_init__(self) -> None:
        _check_bounds(self.start, self.end, self.warm_up, smallest=0.0)

    def bounds(self, step: int) -> tuple[float, float]:
        """Least and largest motion at a step."""
        done = min(step / self.warm_up, 1.0) if self.warm_up else 1.0
        low, high = (start + (end - start) * done for start, end in zip(self.start, self.end))
        return low, high

    def draw(
        self, travel: Float[np.ndarray, "n"], step: int, least: int, rng: np.random.Generator
    ) -> tuple[int, int] | None:
        """First and last context frame, uniform over motions and then over places.

        Args:
            travel: Path length up to each frame of the clip, ascending from 0.
            step: Training step.
            least: Smallest gap in frames that leaves room for the other views of the sample.
            rng: Source of randomness.

        Returns:
            Their indices, or None if the clip moves too little at this step.
        """
        low, high = self.bounds(step)
        high = min(high, float(travel[-1]) if len(travel) else 0.0)
        if high < low or len(travel) <= least:
            return None
        motion = rng.uniform(low, high)
        reach = np.searchsorted(travel, travel + motion)  # the first frame that has moved far enough
        reach = np.maximum(reach, np.arange(len(travel)) + least)
        places = np.flatnonzero(reach < len(travel))
        if not places.size:
            return None
        left = int(rng.choice(places))
        return left, int(reach[left])


def ending_at(
    schedule: GapSchedule | MotionSchedule,
    *,
    gap: tuple[int, int] | None = None,
    motion: tuple[float, float] | None = None,
) -> GapSchedule | MotionSchedule:
    """The curriculum with another end, reached at the same step.

    Args:
        schedule: Where it starts, and how long it takes.
        gap: Last bounds in frames; the start is lowered where it lies above them.
        motion: Last bounds in image widths; the start is the same fraction of them as in `schedule`.

    Raises:
        ValueError: If both are given, or bounds are in the wrong order.
    """
    if gap is not None and motion is not None:
        raise ValueError("a curriculum is measured by gap or by motion, not both")
    if gap is not None:
        start = min(int(schedule.start[0]), gap[0]), min(int(schedule.start[1]), gap[1])
        return GapSchedule(start, gap, schedule.warm_up)
    if motion is not None:
        low, high = (m * s / e for m, s, e in zip(motion, schedule.start, schedule.end))
        return MotionSchedule((low, high), motion, schedule.warm_up)
    return schedule


@dataclass(frozen=True)
class ViewSample:
    """Frames of one clip.

    Attributes:
        context: Frames the scene is built from: the first, the extra ones in random order, the last.
        target: Frames to be predicted.
    """

    context: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def gap(self) -> int:
        """Frames between the first and the last context view."""
        return self.context[-1] - self.context[0]


@dataclass(frozen=True)
class ViewSampler:
    """Draws context and target frames of a clip.

    Attributes:
        schedule: How far apart the outer context frames are.
        context_views: Number of context frames, at least 2; those beyond two lie strictly between the outer
            ones, in random order.
        target_views: Number of target frames.
        targets: "between": distinct, strictly between the outer context frames, and never a context frame.
            "published": each uniform over the whole range with both ends included, repetitions allowed, so
            that a target can equal a context frame, as in the published training.
    """

    schedule: GapSchedule | MotionSchedule
    context_views: int = 2
    target_views: int = 1
    targets: Literal["between", "published"] = "between"

    def __post_init__(self) -> None:
        if self.context_views < 2 or self.target_views < 1:
            raise ValueError(
                f"view sampler: expected at least 2 context views and 1 target view, "
                f"got {self.context_views} and {self.target_views}"
            )

    @property
    def least_gap(self) -> int:
        """Smallest gap that has room for all views."""
        extra = self.context_views - 2
        return 1 + extra + (self.target_views if self.targets == "between" else 0)

    @property
    def needs_travel(self) -> bool:
        """Whether `sample` must be told how far the image moved."""
        return isinstance(self.schedule, MotionSchedule)

    def sample(
        self,
        length: int,
        step: int,
        rng: np.random.Generator,
        travel: Float[np.ndarray, "n"] | None = None,
    ) -> ViewSample | None:
        """Frames of a clip for one sample.

        Args:
            length: Number of frames of the clip.
            step: Training step.
            rng: Source of randomness; the result is a function of its state and the other arguments.
            travel: Path length of the image content up to each frame; needed by a `MotionSchedule` only.

        Returns:
            The frames, or None if the clip is too short or moves too little for the gaps of this step.

        Raises:
            ValueError: A `MotionSchedule` without `travel`.
        """
        if isinstance(self.schedule, MotionSchedule):
            if travel is None:
                raise ValueError("a motion schedule needs the travel of the clip")
            outer = self.schedule.draw(travel, step, self.least_gap, rng)
        else:
            outer = self.schedule.draw(length, step, self.least_gap, rng)
        if outer is None:
            return None
        left, right = outer
        extra = self.context_views - 2
        inside = right - left - 1
        if self.targets == "published":
            between = left + 1 + rng.choice(inside, extra, replace=False) if extra else ()
            target = rng.integers(left, right + 1, self.target_views)
        else:
            drawn = left + 1 + rng.choice(inside, extra + self.target_views, replace=False)
            between, target = drawn[:extra], drawn[extra:]
        return ViewSample((left, *map(int, between), right), tuple(map(int, target)))


@dataclass(frozen=True)
class ViewDropout:
    """Varies the number of views from step to step, the same for the whole batch.

    Of the n context views strictly between the first and the last, k ~ U{0..n} are kept, at random and in
    order; of the m target views, k ~ U{1..m}.

    Attributes:
        context: Whether context views are dropped.
        target: Whether target views are dropped.
    """

    context: bool = True
    target: bool = True

    def kept(
        self, context_views: int, target_views: int, seed: int, step: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Positions of the context views and of the target views that remain; a function of seed and step."""
        rng = random_generator(_DROPOUT, seed, step)
        context, target = tuple(range(context_views)), tuple(range(target_views))
        if self.context and context_views > 2:
            middle = _subset(context[1:-1], int(rng.integers(0, context_views - 1)), rng)
            context = (context[0], *middle, context[-1])
        if self.target:
            target = _subset(target, int(rng.integers(1, target_views + 1)), rng)
        return context, target


def random_generator(*key: int) -> np.random.Generator:
    """A generator that depends on the key alone."""
    return np.random.default_rng([int(part) for part in key])


# First entries of the keys, so that no two uses share random numbers.
_DROPOUT, SAMPLE, ORDER = 1, 2, 3


def _subset(values: Sequence[int], count: int, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(values[i] for i in np.sort(rng.choice(len(values), count, replace=False)))


def _check_bounds(
    start: tuple[float, float], end: tuple[float, float], warm_up: int, smallest: float
) -> None:
    for name, (low, high) in (("start", start), ("end", end)):
        if not smallest <= low <= high:
            raise ValueError(f"{name}: expected {smallest} <= least <= largest, got {low} and {high}")
    if start[0] > end[0] or start[1] > end[1]:
        raise ValueError(f"expected a curriculum that does not shrink, got {start} to {end}")
    if warm_up < 0:
        raise ValueError(f"warm_up: expected 0 or more steps, got {warm_up}")
