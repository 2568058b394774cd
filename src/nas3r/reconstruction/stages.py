"""What the stages after the network cost, by number and size of views: constants that were measured.

Seconds on one core of an ordinary server, fitted by `benchmarks/stages.py` to what it measured
(`benchmarks/results/stages.json`).
"""

import math
from dataclasses import dataclass

import numpy as np

from nas3r.reconstruction.dense import depth_at_half, fitting_limits, shrinking
from nas3r.reconstruction.options import ReconstructOptions

CAMERAS = ("adjust cameras", "tie pictures together")
DENSE, REFINING = "dense depth and Gaussians", "refine"
REST = "load, check and write"
IN_REST = ("load weights", "check")  # and each file that is written


@dataclass(frozen=True)
class Work:
    """What there is to do.

    Attributes:
        views: Number of views.
        tests: Views kept aside.
        full: Width and height at which photos are read for exact cameras; (0, 0) if they are not.
        few: Views from which on they are tied together, not only adjusted.
    """

    views: int
    tests: int
    full: tuple[int, int]
    few: int

    @property
    def full_megapixels(self) -> float:
        """Of a photo for exact cameras."""
        return self.full[0] * self.full[1] / 1e6

    @property
    def dense_size(self) -> tuple[int, int]:
        """Width and height of a photo that Gaussians are fitted to."""
        width, height = self.full
        shrink = shrinking(width, height)
        return width // shrink, height // shrink

    @property
    def dense_megapixels(self) -> float:
        """Of a photo that Gaussians are fitted to."""
        return math.prod(self.dense_size) / 1e6


# Constants belong to the units of the functions below, in order.
_ADJUSTING = (3.1, 0.38)
_TYING = (2.4, 4.3)
_DEPTH = (26.0,)
_FITTING_STEPS = (0.09, 0.62)
_REST_SECONDS = (2.7, 4.4)
_BYTES_AT_LEAST, _BYTES_PER_PIXEL = 7.5e8, 320.0


def adjusting_units(views: int, megapixels: float) -> list[float]:
    """Features by megapixel, and matching by pair of views."""
    return [views * megapixels, views * (views - 1) / 2]


def tying_units(views: int, megapixels: float) -> list[float]:
    """Features by megapixel, and matching by view: each is matched with about as many others."""
    return [views * megapixels, float(views)]


def depth_units(views: int, megapixels: float) -> list[float]:
    """By pixel."""
    return [views * megapixels]


def fitting_units(steps: int, megapixels: float) -> list[float]:
    """By step, and by pixel of the one view that a step renders."""
    return [float(steps), steps * megapixels]


def rest_units(views: int, megapixels: float) -> list[float]:
    """The program itself and the fly-through; judging, exports and report by pixel."""
    return [1.0, views * megapixels]


def seconds_of_stages(work: Work, options: ReconstructOptions) -> dict[str, float]:
    """Of each stage after the network, by its name."""
    rest = _sum(rest_units(work.views + work.tests, work.dense_megapixels), _REST_SECONDS)
    if options.quality == "draft":
        return {**({REFINING: _refining(options)} if options.refines else {}), REST: rest}
    if work.views <= work.few:
        cameras = {CAMERAS[0]: _sum(adjusting_units(work.views, work.full_megapixels), _ADJUSTING)}
    else:
        cameras = {CAMERAS[1]: _sum(tying_units(work.views, work.full_megapixels), _TYING)}
    shrunk = work.dense_megapixels / (4 if depth_at_half(work.dense_size, work.views, options) else 1)
    depth = _sum(depth_units(work.views, shrunk), _DEPTH)
    return {**cameras, DENSE: depth + _fitting_seconds(work, options), REST: rest}


def memory_of_stages(work: Work) -> float:
    """Bytes at their peak, with the program itself."""
    return _BYTES_AT_LEAST + _BYTES_PER_PIXEL * (work.views + work.tests) * work.dense_megapixels * 1e6


def _fitting_seconds(work: Work, options: ReconstructOptions) -> float:
    """Whichever ends first, steps or seconds."""
    steps, seconds = fitting_limits(work.views, options)
    limits = [] if seconds is None else [seconds]
    if steps is not None:
        limits.append(_sum(fitting_units(steps, work.dense_megapixels), _FITTING_STEPS))
    return min(limits)


def _refining(options: ReconstructOptions) -> float:
    """Of a refinement that looks for cameras too, at the size of `detail`."""
    limits = [] if options.refine is None else [options.refine]
    if options.refine_steps is not None:
        limits.append(_sum(fitting_units(options.refine_steps, options.detail**2 / 1e6), _FITTING_STEPS))
    return min(limits)


def _sum(units: list[float], constants: tuple[float, ...]) -> float:
    return float(np.dot(units, constants))
