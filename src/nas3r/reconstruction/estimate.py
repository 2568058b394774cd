"""What a reconstruction would take, before it is made."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nas3r.models import NAS3R, infer, load
from nas3r.models.backdrop import num_cells
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.views import ChosenViews, SizeRule, prepare_views

# Reading, judging, the video and the report; mostly independent of the network.
_REST_SECONDS = 4.0


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
    """Chooses the views as `reconstruct` does, and times the network on two of them.

    Args:
        images: As for `reconstruct`, like the other arguments.
        options: Ditto.
        weights: Ditto.

    Raises:
        ValueError: As `reconstruct`.
    """
    options = options or ReconstructOptions()
    start = time.perf_counter()
    model = weights if isinstance(weights, NAS3R) else load(weights)
    config = model.config
    views = prepare_views(images, options, replace(SizeRule.of(config, options), detail=None))
    reading = time.perf_counter() - start
    count, _, height, width = views.context_images.shape
    cells = (width // config.gaussians.stride) * (height // config.gaussians.stride)
    if config.gaussians.backdrop and not options.surface_only:
        cells += num_cells(height, width, config.patch_size)
    return Estimate(
        views=[view.label for view in views.context],
        held_out=[view.label for view in views.held_out],
        width=width,
        height=height,
        gaussians=count * cells,
        seconds=2 * reading + _network_seconds(model, views) + _REST_SECONDS,
        bytes=_bytes(model, views),
        notes=views.warnings,
    )


@torch.no_grad()
def _network_seconds(model: NAS3R, views: ChosenViews) -> float:
    """Times the network on two and on three views, and extrapolates: views cost, and so do pairs of views."""
    images = views.context_images[None].to(next(model.parameters()).device)

    def seconds(count: int) -> float:
        start = time.perf_counter()
        infer(model, images[:, :count]).prediction.depth.sum().item()
        return time.perf_counter() - start

    seconds(2)  # what only the first pass takes
    two, count = seconds(2) / 2, images.shape[1]
    by_pair = 0.0 if count == 2 else max(0.0, seconds(3) / 3 - two)
    return len(views.images) * two + count * (count - 2) * by_pair


def _bytes(model: NAS3R, views: ChosenViews) -> float:
    """Weights, a few copies of the widest feature maps, matching, the photos, and the program itself."""
    count, _, height, width = views.context_images.shape
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    features = 4.0 * count * height * width * 8 * max(model.config.dense_heads.width, 64)
    largest = max(v.resize.original_width * v.resize.original_height for v in views.context)
    matching = model.poses.peak_bytes(height, width, count)
    return 0.5 * 2**30 + 1.2 * parameters + features + matching + 12.0 * largest
