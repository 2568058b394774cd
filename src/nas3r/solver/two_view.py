"""Relative pose of two views from uncertain correspondences: search, refinement, triangulation.

A point seen along the ray p in one view (z = 1, exact) is seen at q in the reference view (z = 1, with a
covariance). With R and t the pose of the view in the reference's frame, a point at depth d is at d R p + t
there, so q lies on the epipolar line l = t x R p whatever the depth. What is minimised is the distance of q
from that line in standard deviations, robustly (Geman-McClure): Hartley and Zisserman, "Multiple View
Geometry", ch. 11, with the uncertainty in one view only. Hypotheses are told apart by the distance from that
half of the line on which points in front of the view are seen. The length of t is not observable;
`translation_length` finds it from depth.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry.robust import ROBUST, discount, least_squares_step, mean_penalty
from nas3r.geometry.rotation import hat, so3_exp
from nas3r.solver.correspondences import Correspondences
from nas3r.solver.epipolar import (
    LEAST_VARIANCE,
    epipolar_distances,
    epipolar_slopes,
    homogeneous,
    rotation_slopes,
)

_TOLERANCE = 4.0  # times as much in each earlier iteration of the search
_BEHIND = 0.5  # of the typical inverse depth: as far beyond infinity may points seem to be
_MOST_INFORMATION = 1e4  # about an inverse depth, with which it counts
_FIRST_CHOICE = 4  # times as many hypotheses are chosen by few correspondences as are kept
_SHORTEST = 1e-3  # in the unit of depth


@dataclass(frozen=True)
class RelativePose:
    """Pose of a view in the reference view's frame, without the length of the translation.

    Attributes:
        rotation: Reference from view [*b, 3, 3].
        direction: Unit vector from the reference to the view's centre [*b, 3].
        cost: Mean robust distance of the correspondences [*b], 0 to 1; 0 is perfect. Without gradient.
    """

    rotation: Float[Tensor, "*b 3 3"]
    direction: Float[Tensor, "*b 3"]
    cost: Float[Tensor, "*b"]

    def detach(self) -> "RelativePose":
        """The same without gradients."""
        return RelativePose(self.rotation.detach(), self.direction.detach(), self.cost.detach())


def search_relative_pose(
    pairs: Correspondences,
    *,
    hypotheses: int = 32,
    iterations: int = 2,
    kept: int = 8,
    refinements: int = 5,
    few: Int[Tensor, "m"] | None = None,
) -> RelativePose:
    """The best of many directions, each with the rotation that suits it best.

    Given the direction, the rotation is a small least-squares problem; directions are taken from a grid of
    half the sphere. With both signs they are ranked; the first are refined and ranked again. No gradient.

    Args:
        pairs: Correspondences.
        hypotheses: Number of directions; 32 are about 16 degrees apart.
        iterations: Of the rotation's estimate, each of at most 20 degrees.
        kept: Number of hypotheses that are refined.
        refinements: Gauss-Newton steps of each.
        few: Indexes of the correspondences that choose four times as many hypotheses as are kept, among which
            all choose; None for all at once.
    """
    with torch.no_grad():
        # [*b, k, n, ...]: every hypothesis sees all correspondences.
        each = every = Correspondences(*(x.unsqueeze(x.ndim - d) for x, d in _fields(pairs)))
        if few is not None:
            each = Correspondences(*(x.index_select(x.ndim - d, few) for x, d in _fields(every)))
        shape = (*pairs.weights.shape[:-1], hypotheses)
        rotation = torch.eye(3).to(pairs.rays).expand(*shape, 3, 3)
        directions = _half_sphere(hypotheses, pairs.rays).expand(*shape, 3)
        for left in reversed(range(iterations)):  # less and less tolerant: far from it, all look wrong
            rotation = _turn(each, rotation, directions, ROBUST * _TOLERANCE**left)
        best = _either_sign(each, rotation, directions)
        if few is not None:
            best = _best(best, min(_FIRST_CHOICE * kept, 2 * hypotheses))
            best = replace(best, cost=_cost(every, best.rotation, best.direction))
        best = _best(best, min(kept, 2 * hypotheses))
        best = refine_relative_pose(every, best, iterations=refinements)
        best = _best(_either_sign(every, best.rotation, best.direction), 1)
        return RelativePose(best.rotation.squeeze(-3), best.direction.squeeze(-2), best.cost.squeeze(-1))


def refine_relative_pose(
    pairs: Correspondences, start: RelativePose, *, iterations: int = 3, damping: float = 0.005
) -> RelativePose:
    """Gauss-Newton on rotation and direction together; gradients reach the correspondences.

    Only the last step is differentiated: at the minimum its derivative is that of the minimum itself (the
    implicit function theorem with the Gauss-Newton Hessian).

    Args:
        pairs: Correspondences.
        start: Where to start, e.g. from `search_relative_pose`.
        iterations: Number of steps.
        damping: Relative, of the normal equations' diagonal. Rotation and translation nearly cancel in narrow
            views; damping bounds what noise, and the gradient, can do there.
    """
    fixed, pose = pairs.detach(), start.detach()
    with torch.no_grad():
        for _ in range(iterations - 1):
            pose = _step(fixed, pose, damping)
    pose = _step(pairs, pose.detach(), damping)
    with torch.no_grad():
        return replace(pose, cost=_cost(fixed, pose.rotation, pose.direction))


def relative_pose_at(
    pairs: Correspondences, rotation: Float[Tensor, "*b 3 3"], direction: Float[Tensor, "*b 3"]
) -> RelativePose:
    """A known pose, with what it costs."""
    with torch.no_grad():
        return RelativePose(rotation, direction, _cost(pairs, rotation, direction))


def inverse_depths(
    pairs: Correspondences, pose: RelativePose
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n"]]:
    """Triangulation: inverse depth of every ray in units of one over the translation's length.

    Returns:
        The least-squares estimates, negative where a match asks for a point behind the view, and their
        information (inverse variance).
    """
    off, along = _parallax(pairs, pose.rotation, pose.direction)
    return _triangulated(pairs, off, along)


def robust_weights(pairs: Correspondences, pose: RelativePose) -> Float[Tensor, "*b n"]:
    """How much a match counts by its distance from its epipolar line: 1 on it, 0 far away."""
    distance, _, _ = epipolar_distances(pairs, pose.rotation, pose.direction)
    return discount(distance, ROBUST)


def translation_length(
    pairs: Correspondences, pose: RelativePose, depth: Float[Tensor, "*b n"]
) -> Float[Tensor, "*b"]:
    """Length of the translation that brings the matched points, at known depth, onto their rays.

    Args:
        pairs: Correspondences.
        pose: Their pose.
        depth: z-depth of the matched points in the reference view; sets the unit.

    Returns:
        Weighted least squares in the view's image plane. Where that is not positive, a length that moves
        nothing but keeps the direction.
    """
    points = torch.cat([pairs.points, torch.ones_like(depth)[..., None]], -1) @ pose.rotation
    towards = (pose.direction[..., None, :] @ pose.rotation) / depth[..., None]
    # (points - length * towards) is parallel to the ray.
    xy = pairs.rays[..., :2]
    a = towards[..., :2] - xy * towards[..., 2:]
    b = points[..., :2] - xy * points[..., 2:]
    weight = pairs.weights / pairs.covariances.diagonal(dim1=-2, dim2=-1).mean(-1)
    weight = weight * robust_weights(pairs, pose)
    weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-12)
    length = (weight * (a * b).sum(-1)).sum(-1) / ((weight * (a * a).sum(-1)).sum(-1) + 1e-6)
    return length.clamp_min(_SHORTEST)


def epipolar_cost(pairs: Correspondences, pose: RelativePose) -> Float[Tensor, "*b"]:
    """Mean robust distance of the matches from their epipolar lines, 0 to 1."""
    distance, _, _ = epipolar_distances(pairs, pose.rotation, pose.direction)
    return mean_penalty(distance.square(), pairs.weights)


def _fields(pairs: Correspondences) -> list[tuple[Tensor, int]]:
    """Every field with the number of its dimensions from the correspondences on."""
    return [(pairs.rays, 2), (pairs.points, 2), (pairs.covariances, 3), (pairs.weights, 1)]


def _half_sphere(count: int, like: Tensor) -> Float[Tensor, "k 3"]:
    """Evenly spread unit vectors with positive z (a Fibonacci spiral)."""
    i = torch.arange(count, dtype=like.dtype, device=like.device) + 0.5
    z, angle = i / count, math.pi * (1 + math.sqrt(5)) * i
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)


def _cost(pairs: Correspondences, rotation: Tensor, direction: Tensor) -> Float[Tensor, "*b"]:
    """Mean robust distance of the matches from where points in front of the view can be seen.

    That is half of the epipolar line and a little more: a wrong focal length puts far points behind.
    """
    off, along = _parallax(pairs, rotation, direction)
    inverse_depth, information = _triangulated(pairs, off, along)
    counts = pairs.weights * information.clamp(max=_MOST_INFORMATION)
    typical = (counts * inverse_depth.abs()).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp_min(
        1e-9
    )
    off = off - torch.maximum(inverse_depth, -_BEHIND * typical)[..., None] * along
    return mean_penalty((off * _over(pairs.covariances, off)).sum(-1), pairs.weights)


def _either_sign(pairs: Correspondences, rotation: Tensor, direction: Tensor) -> RelativePose:
    """Motions [*b, k] and the same with the opposite direction [*b, 2 k], with their costs."""
    rotation, direction = torch.cat([rotation, rotation], -3), torch.cat([direction, -direction], -2)
    return RelativePose(rotation, direction, _cost(pairs, rotation, direction))


def _best(poses: RelativePose, count: int) -> RelativePose:
    """The cheapest of the poses [*b, k]."""
    cost, best = poses.cost.topk(count, largest=False)
    rotation = poses.rotation.gather(-3, best[..., None, None].expand(*best.shape, 3, 3))
    return RelativePose(rotation, poses.direction.gather(-2, best[..., None].expand(*best.shape, 3)), cost)


def _over(covariances: Float[Tensor, "*b n 2 2"], x: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 2"]:
    """Inverse of the covariances times vectors."""
    a, b, c = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
    solved = torch.stack([c * x[..., 0] - b * x[..., 1], a * x[..., 1] - b * x[..., 0]], -1)
    return solved / (a * c - b * b).clamp_min(LEAST_VARIANCE**2)[..., None]


def _robust_weights(
    pairs: Correspondences, distance: Float[Tensor, "*b n"], scale: float = ROBUST
) -> Float[Tensor, "*b n 1"]:
    return (pairs.weights * discount(distance, scale))[..., None]


def _turn(
    pairs: Correspondences, rotation: Tensor, direction: Tensor, scale: float
) -> Float[Tensor, "*b 3 3"]:
    """One reweighted least-squares step of the rotation with the direction fixed."""
    distance, sigma, _ = epipolar_distances(pairs, rotation, direction)
    turned = pairs.rays @ rotation.mT
    slope = rotation_slopes(homogeneous(pairs.points), turned, direction) / sigma[..., None]
    step = least_squares_step(slope, distance, _robust_weights(pairs, distance, scale), damping=0.0)
    return so3_exp(step) @ rotation


def _slopes(
    pairs: Correspondences,
    rotation: Float[Tensor, "*b 3 3"],
    direction: Float[Tensor, "*b 3"],
    across: Float[Tensor, "*b 3 2"],
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n 5"]]:
    """Distances from epipolar lines; their derivatives by a rotation after the pose's, and by its direction
    along two tangents."""
    slopes = epipolar_slopes(pairs, rotation, direction)
    turned = hat(slopes.turned)
    by_rotation = -hat(direction)[..., None, :, :] @ turned
    of_lines = torch.cat([by_rotation, -turned @ across[..., None, :, :]], -1)
    return slopes.distance, (slopes.by_line[..., None, :] @ of_lines)[..., 0, :] / slopes.sigma[..., None]


def _step(pairs: Correspondences, pose: RelativePose, damping: float) -> RelativePose:
    """One reweighted Gauss-Newton step of rotation and direction."""
    rotation, direction = pose.rotation, pose.direction
    across = _tangents(direction)
    distance, slope = _slopes(pairs, rotation, direction, across)
    step = least_squares_step(slope, distance, _robust_weights(pairs, distance), damping)
    rotation = so3_exp(step[..., :3]) @ rotation
    direction = F.normalize(direction + (across @ step[..., 3:, None])[..., 0], dim=-1)
    return RelativePose(rotation, direction, pose.cost)


def _tangents(direction: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 2"]:
    """Two unit vectors across a unit vector."""
    x, y = torch.eye(3).to(direction)[:2]
    other = torch.where(direction[..., :1].abs() < 0.7, x, y)
    first = F.normalize(torch.linalg.cross(direction, other.expand_as(direction)), dim=-1)
    return torch.stack([first, torch.linalg.cross(direction, first)], -1)


def _parallax(
    pairs: Correspondences, rotation: Tensor, direction: Tensor
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n 2"]]:
    """How far matches are from where points at infinity are, and how these move with inverse depth.

    To first order.
    """
    turned = pairs.rays @ rotation.mT
    z = turned[..., 2:].clamp_min(1e-2)
    start = turned[..., :2] / z
    direction = direction[..., None, :]
    return pairs.points - start, (direction[..., :2] - start * direction[..., 2:]) / z


def _triangulated(
    pairs: Correspondences, off: Float[Tensor, "*b n 2"], along: Float[Tensor, "*b n 2"]
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n"]]:
    """Inverse depths and their information, from `_parallax`."""
    seen = _over(pairs.covariances, along)
    information = (seen * along).sum(-1)
    return (seen * off).sum(-1) / (information + 1e-6), information
