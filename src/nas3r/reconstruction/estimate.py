"""What a reconstruction would take, before it is made: computed, not tried out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from nas3r.memory import available_memory, require_memory
from nas3r.models import NAS3R, load
from nas3r.models.backdrop import num_squares
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.options import Quality, ReconstructOptions
from nas3r.reconstruction.stages import Work, memory_of_stages, seconds_of_stages
from nas3r.reconstruction.views import FEW_VIEWS, MOST_VIEWS, Plan, SizeRule, full_factor, plan_views

# Seconds on one core of an ordinary server, fitted by `benchmarks/estimate.py` to passes of the weights that
# ship, with 2 to 8 views of 64 to 256 pixels a side. Dense layers cost by parameter and token (a patch of the
# image), matching two views by token and by pair of tokens.
_PER_PARAMETER_AND_TOKEN = 4.6e-10
_MATCHING_PER_TOKEN, _MATCHING_PER_TOKEN_PAIR = 1.9e-3, 1.9e-6
_READING_PER_MEGAPIXEL = 0.05  # looking at pictures, and reading them again
_SEEN_FOR_FOCAL = 4  # views by which the network questions a focal length, where it does not see all at once
_PROGRAM_BYTES = 0.5 * 2**30


@dataclass(frozen=True)
class Cost:
    """What a reconstruction takes; within a factor of two or three.

    Attributes:
        bytes: Of main memory; for the network GPU memory, where it runs there.
        stages: Seconds of each stage, by the name that the result's record calls it; those of one core.
    """

    bytes: float
    stages: dict[str, float]

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(self.stages.values())


@dataclass(frozen=True)
class Estimate:
    """What would be made, and what it takes.

    Attributes:
        views: Labels of the views that would be used.
        held_out: Labels of the views that would test.
        width: Of the images the network sees.
        height: Ditto.
        gaussians: Number of them that the network would make.
        quality: That was asked for.
        costs: By quality, without adaptation, whose time is given. Where pictures cannot be tied together, or
            their cameras not be made exact, it takes less.
        notes: Sentences about the choice of views.
    """

    views: list[str]
    held_out: list[str]
    width: int
    height: int
    gaussians: int
    quality: Quality
    costs: dict[Quality, Cost]
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of the quality that was asked for."""
        return self.costs[self.quality].seconds

    @property
    def bytes(self) -> float:
        """Of the quality that was asked for."""
        return self.costs[self.quality].bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "seconds": self.seconds, "bytes": self.bytes}

    @property
    def text(self) -> str:
        """The figures as lines for people."""
        lines = [
            f"views        {len(self.views)}: {', '.join(self.views)}",
            f"kept aside   {', '.join(self.held_out) or 'none: every picture is used'}",
            f"working size {self.width} x {self.height} pixels",
            f"Gaussians    {self.gaussians:,} of the network",
            f"memory       about {self.bytes / 2**30:.1f} GB",
            f"time         about {self.seconds:.0f} s of one core, without --adapt:",
        ]
        lines += [f"             {s:6.0f} s  {name}" for name, s in self.costs[self.quality].stages.items()]
        lines += [
            f"{'quality':<12} {name}: about {cost.seconds:.0f} s and {cost.bytes / 2**30:.1f} GB"
            for name, cost in self.costs.items()
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
        quality=options.quality,
        costs={
            quality: _cost(model, plan, replace(options, quality=quality)) for quality in get_args(Quality)
        },
        notes=plan.notes,
    )


def _cost(model: NAS3R, plan: Plan, options: ReconstructOptions) -> Cost:
    """Of a quality, for about the views that it would use."""
    views = _num_views(plan, options)
    at_once = min(views, FEW_VIEWS) if options.quality != "draft" else views
    width, height = plan.working
    size = replace(SizeRule.of(model.config, options), detail=None)
    factor = full_factor(size, plan.working, [picture.size for picture in plan.context])
    work = Work(views, len(plan.held_out), (width * factor, height * factor), FEW_VIEWS)
    seen = at_once if views <= FEW_VIEWS or options.quality == "draft" else _SEEN_FOR_FOCAL
    stages = {
        "read pictures": _reading_seconds(plan),
        "network": _network_seconds(model, plan, seen),
        **seconds_of_stages(work, options),
    }
    needed = memory_needed(model, at_once, width, height, plan.largest_photo)
    return Cost(max(needed, memory_of_stages(work)), stages)


def _num_views(plan: Plan, options: ReconstructOptions) -> int:
    """How many views a quality would use: exactly for the one planned, at most for others."""
    if options.views is not None:
        return len(plan.context)
    if options.quality == "draft":
        return min(len(plan.context), FEW_VIEWS)
    if plan.full_factor:
        return len(plan.context)
    return max(len(plan.context), min(len(plan.candidates.pictures) - len(plan.held_out), MOST_VIEWS))


def _reading_seconds(plan: Plan) -> float:
    pixels = sum(math.prod(picture.size) for picture in plan.candidates.pictures)
    again = sum(math.prod(picture.size) for picture in (*plan.context, *plan.held_out))
    return _READING_PER_MEGAPIXEL * (pixels + again) / 1e6


def _network_seconds(model: NAS3R, plan: Plan, views: int) -> float:
    """Views cost, and so do pairs of views where the network matches them."""
    width, height = plan.working
    tokens = (width // model.config.patch_size) * (height // model.config.patch_size)
    tests = len(plan.held_out)
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
