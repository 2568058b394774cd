"""Curricula that follow the clock instead of the step, for runs with a time budget."""

from dataclasses import dataclass, replace

from nas3r.data.sampling import GapSchedule, MotionSchedule, ViewSampler


@dataclass
class Pace:
    """Where in the nominal number of steps a timed run stands; the trainer moves it.

    Attributes:
        step: Nominal step.
    """

    step: int = 0


@dataclass(frozen=True)
class PacedGaps(GapSchedule):
    """A `GapSchedule` at the pace's step instead of the step it is asked for."""

    pace: Pace

    def bounds(self, step: int) -> tuple[int, int]:
        """Least and largest gap now."""
        return super().bounds(self.pace.step)


@dataclass(frozen=True)
class PacedMotion(MotionSchedule):
    """A `MotionSchedule` at the pace's step instead of the step it is asked for."""

    pace: Pace

    def bounds(self, step: int) -> tuple[float, float]:
        """Least and largest motion now."""
        return super().bounds(self.pace.step)


def paced(sampler: ViewSampler, pace: Pace) -> ViewSampler:
    """The sampler with its curriculum driven by a pace."""
    schedule = sampler.schedule
    if isinstance(schedule, MotionSchedule):
        return replace(sampler, schedule=PacedMotion(schedule.start, schedule.end, schedule.warm_up, pace))
    return replace(sampler, schedule=PacedGaps(schedule.start, schedule.end, schedule.warm_up, pace))
