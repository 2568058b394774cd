"""What a reconstruction would take, before it is made."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nas3r.models import NAS3R, load
from nas3r.models.backdrop import num_cells
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.views import Views, prepare_views

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
    *,
    weights: str | Path | NAS3R | None = None,
    views: int | None = None,
    held_out: int = 2,
    size: int | None = None,
    surface_only: bool = False,
) -> Estimate:
    """Chooses the views as `reconstruct` does, and times the network on two of them.

    Args:
        images: As for `reconstruct`, like the other arguments.
        weights: Ditto.
        views: Ditto.
        held_out: Ditto.
        size: Ditto.
        surface_only: Ditto.

    Raises:
        ValueError: As `reconstruct`.
    """
    start = time.perf_counter()
    model = weights if isinstance(weights, NAS3R) else load(weights)
    config = model.config
    prepared = prepare_views(
        images,
        count=views,
        num_held_out=held_out,
        image_size=size or config.image_size,
        patch_size=config.patch_size,
        landscape_only=config.landscape_only,
    )
    reading = time.perf_counter() - start
    count, _, height, width = prepared.context_images.shape
    cells = (width // config.gaussian_stride) * (height // config.gaussian_stride)
    if config.backdrop and not surface_only:
        cells += num_cells(height, width, config.patch_size)
    return Estimate(
        views=[view.label for view in prepared.context],
        held_out=[view.label for view in prepared.held_out],
        width=width,
        height=height,
        gaussians=count * cells,
        seconds=2 * reading + _network_seconds(model, prepared) + _REST_SECONDS,
        bytes=_bytes(model, prepared),
        notes=prepared.warnings,
    )


@torch.no_grad()
def _network_seconds(model: NAS3R, prepared: Views) -> float:
    """Times the network on two and on three views, and extrapolates: views cost, and so do pairs of views."""
    images = prepared.context_images[None].to(next(model.parameters()).device)

    def seconds(views: int) -> float:
        start = time.perf_counter()
        model.predict(model.encode_context(images[:, :views])).depth.sum().item()
        return time.perf_counter() - start

    seconds(2)  # what only the first pass takes
    two, count = seconds(2) / 2, images.shape[1]
    by_pair = 0.0 if count == 2 else max(0.0, seconds(3) / 3 - two)
    return len(prepared.images) * two + count * (count - 2) * by_pair


def _bytes(model: NAS3R, prepared: Views) -> float:
    """Weights, a few copies of the widest feature maps, matching, the photos, and the program itself."""
    count, _, height, width = prepared.context_images.shape
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    features = 4.0 * count * height * width * 8 * max(model.config.head_width, 64)
    largest = max(v.resize.original_width * v.resize.original_height for v in prepared.context)
    matching = 0 if model.solver is None else model.solver.matching_bytes(height, width, count)
    return 0.5 * 2**30 + 1.2 * parameters + features + matching + 12.0 * largest
