"""The stage after a prediction: depth and Gaussians on which the views agree."""

import dataclasses
import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.consistency.photo_consistency import color_agreement
from nas3r.consistency.plane_sweep import sweep_factor
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.matching.features import PatchProjections

_PATCHES = ((5, 1), (7, 1))  # side and spacing in pixels: what likeness is measured on
_BACKDROP_QUANTILE = 0.95  # of a view's depth: what stands behind the scene moves along with it


@dataclass(frozen=True)
class Surfaces:
    """What the views of a scene show, in the frame of its cameras.

    Attributes:
        depth: z-depth of the views [b, v, h, w], in the unit of the poses.
        gaussians: One for each pixel of the views, or for each square of pixels; ordered by view, row,
            column.
        backdrop: Gaussians that stand behind all that their view shows, as many for each view; None without.
    """

    depth: Float[Tensor, "b v h w"]
    gaussians: Gaussians
    backdrop: Gaussians | None = None


def compare_views(images: Float[Tensor, "b v 3 h w"], cameras: Cameras, surfaces: Surfaces) -> Surfaces:
    """Depth moves to where the views look alike; Gaussians follow, and count as far as views agree on them.

    Gaussians stay at their pixel: they move along its ray, and grow as the pixel's footprint does. How far is
    found without gradient; gradients reach the surfaces.

    Args:
        images: The views, in [0, 1]; even height and width.
        cameras: Of the views.
        surfaces: As a model predicts them.
    """
    features = PatchProjections(_PATCHES).to(images.device)(images.flatten(0, 1))
    factor = sweep_factor(features.unflatten(0, images.shape[:2]), surfaces.depth.detach(), cameras)
    depth = factor * surfaces.depth
    agreement = color_agreement(images, depth.detach(), cameras)
    views = images.shape[1]
    side = math.isqrt(views * depth.shape[-1] * depth.shape[-2] // surfaces.gaussians.num_gaussians)
    ratio = _cells(depth, side) / _cells(surfaces.depth, side) if side > 1 else factor
    moved = _moved(surfaces.gaussians, cameras, ratio.flatten(2))
    opacities = _cells(agreement, side).flatten(1) * moved.opacities
    backdrop = surfaces.backdrop
    if backdrop is not None:
        farther = _far(depth) / _far(surfaces.depth)
        backdrop = _moved(backdrop, cameras, farther.expand(-1, -1, backdrop.num_gaussians // views))
    return Surfaces(depth, dataclasses.replace(moved, opacities=opacities), backdrop)


def _moved(gaussians: Gaussians, cameras: Cameras, ratio: Float[Tensor, "b v n"]) -> Gaussians:
    """Gaussians at another distance from the centre of their camera, which sees them as it did."""
    centers = cameras.centers[:, :, None].expand(*ratio.shape, 3).flatten(1, 2)
    ratio = ratio.flatten(1)[..., None]
    means = centers + ratio * (gaussians.means - centers)
    return dataclasses.replace(gaussians, means=means, scales=ratio * gaussians.scales)


def _cells(maps: Float[Tensor, "b v h w"], side: int) -> Float[Tensor, "b v ch cw"]:
    """Means over squares."""
    return maps if side == 1 else F.avg_pool2d(maps, side)


def _far(depth: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v 1"]:
    return depth.detach().flatten(2).quantile(_BACKDROP_QUANTILE, -1, keepdim=True)
