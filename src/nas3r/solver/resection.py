"""Pose of a view from points of known place: where it sees them decides, not only their epipolar lines.

A robust minimum of reprojection errors (Hartley and Zisserman, "Multiple View Geometry", sec. 7.2). Points
come from the depth maps of other views; an error of depth moves a point along its ray from there, so that
direction counts less.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.robust import ROBUST, discount, least_squares_step, mean_penalty
from nas3r.geometry.rotation import hat, so3_exp
from nas3r.geometry.se3 import invert_pose, make_pose, transform_points

_DEPTH_SIGMA = 0.4  # relative: about as wrong as depth maps are
_NEAREST = 1e-2  # z-depth below which points do not count


@dataclass(frozen=True)
class Sightings:
    """World points, and where a view sees them.

    Attributes:
        points: In the world [*b, n, 3].
        origins: Centres of the cameras whose depth the points are of, likewise.
        seen: In the view's plane z = 1 [*b, n, 2].
        covariances: Of `seen` [*b, n, 2, 2].
        weights: How much each counts [*b, n], 0 to 1.
    """

    points: Float[Tensor, "*b n 3"]
    origins: Float[Tensor, "*b n 3"]
    seen: Float[Tensor, "*b n 2"]
    covariances: Float[Tensor, "*b n 2 2"]
    weights: Float[Tensor, "*b n"]

    def detach(self) -> "Sightings":
        """The same without gradients."""
        return Sightings(
            self.points.detach(),
            self.origins.detach(),
            self.seen.detach(),
            self.covariances.detach(),
            self.weights.detach(),
        )


def resect(
    sightings: Sightings, start: Float[Tensor, "*b 4 4"], *, iterations: int = 5, damping: float = 1e-3
) -> Float[Tensor, "*b 4 4"]:
    """Pose that explains the sightings best, near a first estimate; gradients reach the sightings.

    Only the last Gauss-Newton step is differentiated, as in `nas3r.solver.two_view.refine_relative_pose`.

    Args:
        sightings: Points and where the view sees them.
        start: World from camera. Kept where the refined pose explains the sightings worse.
        iterations: Number of steps.
        damping: Relative, of the normal equations' diagonal, as in `refine_relative_pose`.
    """
    fixed = sightings.detach()
    with torch.no_grad():
        before = invert_pose(start)
        pose = before
        for _ in range(iterations - 1):
            pose = _step(fixed, pose, damping)
    pose = _step(sightings, pose, damping)
    with torch.no_grad():
        better = _cost(fixed, pose) < _cost(fixed, before)
    return torch.where(better[..., None, None], invert_pose(pose), start)


def _step(
    sightings: Sightings, camera_from_world: Float[Tensor, "*b 4 4"], damping: float
) -> Float[Tensor, "*b 4 4"]:
    """One reweighted Gauss-Newton step: a rotation about the camera, and a shift."""
    points, errors, slopes = _errors(sightings, camera_from_world)
    by_pose = torch.cat([-slopes @ hat(points), slopes], -1)
    weight = sightings.weights * discount(torch.linalg.vector_norm(errors, dim=-1), ROBUST)
    weight = weight * (points[..., 2] > _NEAREST)
    step = least_squares_step(
        by_pose.flatten(-3, -2),
        errors.flatten(-2),
        weight[..., None].expand_as(errors).flatten(-2)[..., None],
        damping,
    )
    turn = so3_exp(step[..., :3])
    shift = (turn @ camera_from_world[..., :3, 3:])[..., 0] + step[..., 3:]
    return make_pose(turn @ camera_from_world[..., :3, :3], shift)


def _cost(sightings: Sightings, camera_from_world: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Mean robust error, 0 to 1; points behind the camera cost 1."""
    points, errors, _ = _errors(sightings, camera_from_world)
    return mean_penalty(errors.square().sum(-1), sightings.weights, points[..., 2] > _NEAREST)


def _errors(
    sightings: Sightings, camera_from_world: Float[Tensor, "*b 4 4"]
) -> tuple[Float[Tensor, "*b n 3"], Float[Tensor, "*b n 2"], Float[Tensor, "*b n 2 3"]]:
    """Points in the camera, reprojection errors in standard deviations, and their slopes by the points."""
    points = transform_points(camera_from_world, sightings.points)
    rays = (sightings.points - sightings.origins) @ camera_from_world[..., :3, :3].mT
    slopes = _projection_slopes(points)
    with torch.no_grad():
        along = _DEPTH_SIGMA * (slopes @ rays[..., None])
        whiten = _whitening(sightings.covariances + along @ along.mT)
    off = points[..., :2] / points[..., 2:].clamp_min(_NEAREST) - sightings.seen
    return points, (whiten @ off[..., None])[..., 0], whiten @ slopes


def _projection_slopes(points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 2 3"]:
    """Derivatives of the projections on z = 1 by the points."""
    inverse = 1 / points[..., 2:].clamp_min(_NEAREST)
    eye = torch.eye(2).to(points).expand(*points.shape[:-1], 2, 2)
    return inverse[..., None] * torch.cat([eye, -(points[..., :2] * inverse)[..., None]], -1)


def _whitening(covariances: Float[Tensor, "*b n 2 2"]) -> Float[Tensor, "*b n 2 2"]:
    """W with W C W^T = 1: the inverse of the Cholesky factor."""
    first = covariances[..., 0, 0].rsqrt()
    ratio = covariances[..., 0, 1] / covariances[..., 0, 0]
    second = (covariances[..., 1, 1] - ratio * covariances[..., 0, 1]).clamp_min(1e-12).rsqrt()
    zero = torch.zeros_like(first)
    return torch.stack([first, zero, -second * ratio, second], -1).unflatten(-1, (2, 2))
