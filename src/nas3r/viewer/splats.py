"""Gaussians as the arrays a splat viewer draws, filtered and coloured."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.geometry import Cameras, matrix_from_quat
from nas3r.reconstruction.colormap import colorize_depth, depth_limits

Coloring = Literal["photo", "depth"]

# Median standard deviation on screen, in the viewer's unit. The browser keeps covariances in half precision,
# which has no numbers between 0 and 6e-8: scenes are enlarged until theirs are far from that.
DISPLAY_SIGMA = 0.1


@dataclass(frozen=True)
class Filters:
    """Which Gaussians are shown, and how.

    Attributes:
        min_opacity: More transparent ones are hidden.
        max_size: Fraction of the Gaussians that is kept, from the smallest up; hides large floaters.
        size_factor: Factor of the drawn size.
        coloring: "photo" is their own colour, "depth" the distance from the nearest camera.
    """

    min_opacity: float = 0.0
    max_size: float = 1.0
    size_factor: float = 1.0
    coloring: Coloring = "photo"


@dataclass(frozen=True)
class SplatArrays:
    """What is drawn: centres, covariances, colours and opacities."""

    centers: Float[np.ndarray, "n 3"]
    covariances: Float[np.ndarray, "n 3 3"]
    rgbs: UInt8[np.ndarray, "n 3"]
    opacities: Float[np.ndarray, "n 1"]


def kept(gaussians: Gaussians, filters: Filters) -> Bool[Tensor, "n"]:
    """Mask of the Gaussians of one scene that the filters let through."""
    opaque = gaussians.opacities[0] >= filters.min_opacity
    if filters.max_size >= 1 or gaussians.num_gaussians == 0:
        return opaque
    size = gaussians.scales[0].amax(-1)
    limit = torch.from_numpy(np.quantile(size.numpy(), [max(filters.max_size, 0.0)])).to(size.dtype)
    return opaque & (size <= limit)


def filtered(gaussians: Gaussians, filters: Filters) -> Gaussians:
    """The Gaussians that are shown, at the size that is drawn: what an export holds."""
    some = gaussians.select(kept(gaussians, filters))
    return Gaussians(some.means, some.quats, some.scales * filters.size_factor, some.opacities, some.sh)


def splat_arrays(gaussians: Gaussians, cameras: Cameras, filters: Filters, enlarge: float) -> SplatArrays:
    """Arrays of one scene for drawing.

    Colours are those seen on average from the cameras' side: spherical harmonics of degree 0.

    Args:
        gaussians: Batch of one.
        cameras: Batch of one, for the depth colours.
        filters: What is shown.
        enlarge: Factor of all lengths.
    """
    shown = filtered(gaussians, filters)
    if filters.coloring == "depth":
        rgbs = _depth_colors(gaussians, cameras)[kept(gaussians, filters).numpy()]
    else:
        rgbs = ((shown.sh[0, :, 0] * SH_C0 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    axes = matrix_from_quat(shown.quats[0]) * (enlarge * shown.scales[0])[:, None, :]
    return SplatArrays(
        (enlarge * shown.means[0]).numpy(),
        (axes @ axes.mT).numpy(),
        rgbs,
        shown.opacities[0, :, None].numpy(),
    )


def display_scale(gaussians: Gaussians) -> float:
    """How much a scene is enlarged for the browser, see `DISPLAY_SIGMA`."""
    if gaussians.num_gaussians == 0:
        return 1.0
    return DISPLAY_SIGMA / max(gaussians.scales.median().item(), 1e-12)


def _depth_colors(gaussians: Gaussians, cameras: Cameras) -> UInt8[np.ndarray, "n 3"]:
    """Colours by distance from the nearest camera, of all Gaussians."""
    distance = torch.cdist(gaussians.means[0], cameras.centers[0]).amin(-1).numpy()
    return colorize_depth(distance, depth_limits(distance))
