"""How much of one view another sees, from true cameras and, where there is any, true depth."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedViews
from nas3r.geometry import Cameras, angle_between, pixel_grid, project, unproject

OVERLAP_SIZE = 32
"""Views are read at this many pixels a side to measure overlap."""

_GRID = 16  # points a side
# A point is hidden in another view if that view's depth there is smaller by more than this share.
_OCCLUSION = 0.1


def pairwise_overlap(views: PosedViews) -> Float[Tensor, "v v"]:
    """Share of view i's pixels that view j sees, the smaller of both directions; 1 on the diagonal.

    With depth in every view, its points are projected and tested for occlusion. Without, every view is taken
    for a plane facing it, at the distance where the optical axes of the scene come closest to one another,
    and a point counts less the more the directions differ from which the two views see it: linearly down to
    nothing at 90 degrees, where surfaces are hidden or foreshortened beyond recognition. A stand-in, made
    for views around an object and coarse elsewhere.
    """
    count = len(views.images)
    grid = pixel_grid(_GRID, _GRID).reshape(-1, 2)
    measured = views.depth is not None and bool((views.depth > 0).flatten(1).any(1).all())
    depth = (
        _depth_at(views, grid) if measured else plane_distances(views.cameras)[:, None].expand(-1, len(grid))
    )
    points = unproject(views.cameras, grid.expand(1, count, -1, -1), depth[None])[0]
    overlap = torch.eye(count)
    for i in range(count):
        known = depth[i] > 0
        xy, z = project(views.cameras, points[None, i][:, known])
        seen = (z[0] > 0) & (xy[0] >= 0).all(-1) & (xy[0] < 1).all(-1)
        if measured:
            assert views.depth is not None
            seen &= z[0] <= (1 + _OCCLUSION) * _look_up(views.depth, xy[0])
            weight = torch.ones_like(z[0])
        else:
            weight = 1 - _angles(views.cameras.centers[0], points[i, known], i) / 90
        overlap[i] = (seen * weight.clamp_min(0)).mean(1)
    overlap.fill_diagonal_(1.0)
    return torch.minimum(overlap, overlap.T)


def _angles(centers: Float[Tensor, "v 3"], points: Float[Tensor, "n 3"], i: int) -> Float[Tensor, "v n"]:
    """Angle in degrees at each point between the rays to view i and to every view."""
    rays = points[None] - centers[:, None]
    return angle_between(rays[i].expand_as(rays), rays)


def _look_up(depth: Float[Tensor, "v h w"], xy: Float[Tensor, "v n 2"]) -> Float[Tensor, "v n"]:
    """Depth at normalised positions, infinite where unknown or outside (nothing there hides a point)."""
    height, width = depth.shape[1:]
    x = (xy[..., 0] * width).floor().clamp(0, width - 1).long()
    y = (xy[..., 1] * height).floor().clamp(0, height - 1).long()
    found = depth.flatten(1).gather(1, y * width + x)
    return torch.where(found > 0, found, torch.full_like(found, torch.inf))


def _depth_at(views: PosedViews, grid: Float[Tensor, "n 2"]) -> Float[Tensor, "v n"]:
    assert views.depth is not None
    found = _look_up(views.depth, grid.expand(len(views.depth), -1, -1))
    return torch.where(found.isfinite(), found, torch.zeros_like(found))


def plane_distances(cameras: Cameras) -> Float[Tensor, "v"]:
    """Distance of each camera to the point nearest to all optical axes, along its own axis.

    Where that point is behind a camera or nearer than the cameras are spread, the spread (root mean square
    distance of the centres from their mean) is taken instead; for a single place, 1.
    """
    centers = cameras.centers[0].double()
    axes = cameras.world_from_camera[0, :, :3, 2].double()
    spread = (centers - centers.mean(0)).square().sum(-1).mean().sqrt()
    if float(spread) == 0:
        return torch.ones(len(centers))
    # Least squares point: sum_i (I - a_i a_i^T)(p - c_i) = 0; the ridge keeps it near the cameras when the
    # axes are parallel and the point is undetermined.
    away = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    ridge = 1e-3 * len(centers) * torch.eye(3, dtype=torch.float64)
    right = (away @ centers[:, :, None]).sum(0) + ridge @ centers.mean(0)[:, None]
    point = torch.linalg.solve(away.sum(0) + ridge, right).squeeze(-1)
    distance = ((point - centers) * axes).sum(-1)
    return torch.maximum(distance, spread).float()
