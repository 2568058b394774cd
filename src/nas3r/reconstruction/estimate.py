"""What a reconstruction would take, before it is made: computed, not tried out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas3r.memory import available_memory, require_memory
from nas3r.models import NAS3R, load
from nas3r.models.backdrop import num_squares
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.views import Plan, SizeRule, plan_views

# Seconds on one core of an ordinary server, fitted by `benchmarks/estimate.py` to passes of the weights that
# ship, with 2 to 8 views of 64 to 256 pixels a side. Dense layers cost by parameter and token (a patch of the
# image), matching two views by token and by pair of tokens.
_PER_PARAMETER_AND_TOKEN = 4.6e-10
_MATCHING_PER_TOKEN, _MATCHING_PER_TOKEN_PAIR = 1.9e-3, 1.9e-6
# Looking at pictures and reading them again, by megapixel; and the rest, mostly independent of the network:
# judging, the video and the report.
_READING_PER_MEGAPIXEL = 0.05
_REST_SECONDS = 4.0
_PROGRAM_BYTES = 0.5 * 2**30


@dataclass(frozen=True)
class Estimate:
    """Rough figures; seconds and bytes within a factor of two or three.

    Attributes:
        views: Labels of the views that would be used.
        held_out: Labels of the views that would test.
        width: Of the images the network sees.
        height: Ditto.
        gaussians: Number of them.
        seconds: Of everything but refinement and adaptation, whose time is given.
        bytes: Of main memory or, for the network, GPU memory.
        notes: Sentences about the choice of views.
    """

    views: list[str]
    held_out: list[str]
    width: int
    height: int
    gaussians: int
    seconds: float
    bytes: float
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The figures as lines for people."""
        lines = [
            f"views        {len(self.views)}: {', '.join(self.views)}",
            f"kept aside   {', '.join(self.held_out) or 'none: every picture is used'}",
            f"working size {self.width} x {self.height} pixels",
            f"Gaussians    {self.gaussians:,}",
            f"memory       about {self.bytes / 2**30:.1f} GB",
            f"time         about {self.seconds:.0f} s, without --refine and --adapt",
        ]
        return "\n".join(lines + [f"note         {note}" for note in self.notes])


def estimate(
    images: Sequence[InputLike] | InputLike,
    options: ReconstructOptions | None = None,
    *,
    weights: str | Path | NAS3R | None = None,
) -> Estimate:
    """Chooses the views as `reconstruct` does, and computes the rest.

    Args:
        images: As for `reconstruct`, like the other arguments.
        options: Ditto.
        weights: Ditto.

    Raises:
        ValueError: As `reconstruct`.
    """
    options = options or ReconstructOptions()
    options.check()
    model = weights if isinstance(weights, NAS3R) else load(weights)
    config = model.config
    plan = plan_views(images, options, replace(SizeRule.of(config, options), detail=None))
    width, height = plan.working
    squares = (width // config.gaussians.stride) * (height // config.gaussians.stride)
    if config.gaussians.backdrop and not options.surface_only:
        squares += num_squares(height, width, config.patch_size)
    return Estimate(
        views=[picture.label for picture in plan.context],
        held_out=[picture.label for picture in plan.held_out],
        width=width,
        height=height,
        gaussians=len(plan.context) * squares,
        seconds=_reading_seconds(plan) + _network_seconds(model, plan) + _REST_SECONDS,
        bytes=memory_needed(model, len(plan.context), width, height, plan.largest_photo),
        notes=plan.notes,
    )


def _reading_seconds(plan: Plan) -> float:
    pixels = sum(math.prod(picture.size) for picture in plan.candidates.pictures)
    again = sum(math.prod(picture.size) for picture in (*plan.context, *plan.held_out))
    return _READING_PER_MEGAPIXEL * (pixels + again) / 1e6


def _network_seconds(model: NAS3R, plan: Plan) -> float:
    """Views cost, and so do pairs of views where the network matches them."""
    width, height = plan.working
    tokens = (width // model.config.patch_size) * (height // model.config.patch_size)
    views, tests = len(plan.context), len(plan.held_out)
    parameters = sum(p.numel() for p in model.parameters())
    seconds = (views + tests) * tokens * parameters * _PER_PARAMETER_AND_TOKEN
    if model.poses.view_matcher is not None:
        pairs = views * (views - 1) / 2 + tests
        seconds += pairs * tokens * (_MATCHING_PER_TOKEN + tokens * _MATCHING_PER_TOKEN_PAIR)
    return seconds


def memory_needed(model: NAS3R, views: int, width: int, height: int, photo_pixels: int = 0) -> float:
    """Bytes: weights, a few copies of the widest feature maps, matching, the photos, and the program itself.

    Args:
        model: The network.
        views: Number of views it sees at once.
        width: Of their images.
        height: Ditto.
        photo_pixels: Of the largest photo that is read.
    """
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    features = 4.0 * views * height * width * 8 * max(model.config.dense_heads.width, 64)
    matching = model.poses.peak_bytes(height, width, views)
    return _PROGRAM_BYTES + 1.2 * parameters + features + matching + 12.0 * photo_pixels


def require_fit(
    model: NAS3R, views: int, width: int, height: int, *, factor: int = 1, photo: int = 0
) -> None:
    """Raises InsufficientMemoryError, with the size that would fit, if a pass of the network would not.

    Args:
        model: The network. What it takes on a GPU is not counted: there, asking too much is no danger.
        views: Number of views it sees at once.
        width: Of their images.
        height: Ditto.
        factor: How many times larger, along both sides, images are kept for refinement.
        photo: Number of pixels of the largest photo that is read.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"

    def needed(scale: float) -> float:
        w, h = scale * width, scale * height
        images = 4.0 * 3 * 3 * views * w * h * factor**2  # as read, as bytes and as floats
        network = memory_needed(model, views, round(w), round(h)) - _PROGRAM_BYTES if on_cpu else 0.0
        return images + network + 12.0 * photo

    free = available_memory()
    if free is None or needed(1.0) <= free:
        return
    patch, scale = model.config.patch_size, 1.0
    while scale * math.sqrt(width * height) > patch and needed(scale) > free:
        scale *= 0.95
    side = int(scale * math.sqrt(width * height)) // patch * patch
    advice = f"--size {side} would fit" if needed(scale) <= free and side else "use smaller photos"
    require_memory(needed(1.0), f"reconstructing from {views} views of {width} x {height} pixels", advice)
