"""Where views show the points of other views."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.geometry import Cameras, nearest_others, project, sample_maps, select_views


@dataclass(frozen=True)
class Reprojected:
    """Points of views, seen by one other view each.

    Attributes:
        xy: Normalised image coordinates [b, v, n, 2].
        depth: z-depth there [b, v, n].
        inside: Whether they are in front of that view and within its image [b, v, n].
    """

    xy: Float[Tensor, "b v n 2"]
    depth: Float[Tensor, "b v n"]
    inside: Bool[Tensor, "b v n"]

    def look_up(self, maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v c n"]:
        """Bilinear values at the points, of maps of the view that looks, for every view."""
        return sample_maps(maps, self.xy)


def reproject(points: Float[Tensor, "b v n 3"], cameras: Cameras, others: Int[Tensor, "b v"]) -> Reprojected:
    """Where other views see each view's points.

    Args:
        points: World points of every view.
        cameras: Of all views.
        others: Index of the view that looks.
    """
    shape = others.shape
    poses, intrinsics = (
        select_views(cameras.world_from_camera, others),
        select_views(cameras.intrinsics, others),
    )
    looking = Cameras(poses.flatten(0, 1)[:, None], intrinsics.flatten(0, 1)[:, None])
    xy, depth = (x[:, 0].unflatten(0, shape) for x in project(looking, points.flatten(0, 1)))
    return Reprojected(xy, depth, (depth > 0) & (xy > 0).all(-1) & (xy < 1).all(-1))


def nearest_views(cameras: Cameras, most: int) -> Sequence[Int[Tensor, "b v"]]:
    """Of every view the other views by the distance of their centres: all nearest ones, all second, ...

    Args:
        cameras: Of at least two views.
        most: How many, at most.
    """
    centers = cameras.centers
    apart = torch.linalg.vector_norm(centers[:, :, None] - centers[:, None], dim=-1)
    return nearest_others(apart, most).unbind(-1)
