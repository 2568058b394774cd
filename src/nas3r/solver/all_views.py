"""Poses of many views, and their focal length, from the matches of all pairs at once.

Two views say how they are turned and in which direction one lies from the other, not how far, and hardly the
focal length. Poses that agree with the matches of all pairs are better than poses chained along a way, and
three views fix a focal length. What is minimised is the sum over pairs of what `nas3r.solver.two_view`
minimises for one: robust distances from epipolar lines, in standard deviations. No depth is a parameter, so
views that share no points, and points seen twice only, take part (an epipolar bundle adjustment; Levenberg
and Marquardt's damping, Hartley and Zisserman, "Multiple View Geometry", A6.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.geometry.batch import select_views
from nas3r.geometry.robust import ROBUST, damped_step, discount, penalty, shortened
from nas3r.geometry.rotation import hat, so3_exp
from nas3r.geometry.se3 import make_pose
from nas3r.matching.matches import PairedMatches
from nas3r.solver.correspondences import Correspondences, calibrated
from nas3r.solver.epipolar import epipolar_distances, epipolar_slopes

_MOST_STEPS = 40
_FIRST_DAMPING, _LEAST_DAMPING = 5e-3, 1e-4  # relative, of the normal equations' diagonal
_FOCAL_SPREAD = 0.1  # prior standard deviation of the focal length's logarithm
_ENOUGH = 1e-5  # relative gain below which nothing more is to be had
_LEAST_LENGTH = 1e-6


@dataclass(frozen=True)
class MatchedViews:
    """Matches between views of a scene, a number of other views for each.

    Attributes:
        pairs: Points of every view, found in each of its others [*b, v, k, n, ...].
        others: Index of those views [*b, v, k].
    """

    pairs: Correspondences
    others: Int[Tensor, "b v k"]

    @staticmethod
    def calibrated(pairs: Sequence[PairedMatches], intrinsics: Float[Tensor, "b v 3 3"]) -> "MatchedViews":
        """Views of a context, matched with one other view after the other.

        Args:
            pairs: Of all views.
            intrinsics: Of the views.
        """
        stacked = Correspondences.stack([calibrated(one, intrinsics, intrinsics) for one in pairs])
        return MatchedViews(stacked, torch.stack([one.references for one in pairs], -1))


def adjust_poses(
    matched: MatchedViews, start: Float[Tensor, "b v 4 4"], *, focal: bool = True
) -> tuple[Float[Tensor, "b v 4 4"], Float[Tensor, "b"]]:
    """Poses near a start that explain the matches of all pairs best, and by how much the focal length grows.

    The first view stays where it is, and the mean distance of the others from it as it was: matches do not
    say the unit. Views without matches stay nearly where they are. No gradient.

    Args:
        matched: Matches, with an assumed focal length.
        start: World from camera; the first view's frame is the world.
        focal: Whether the focal length, one for all views, is not known but a guess.

    Returns:
        The poses, and the focal length in units of the assumed one (1 if it is known).
    """
    with torch.no_grad():
        unit = _typical_distance(start[..., :3, 3])
        state = _State(start[..., :3, :3], start[..., :3, 3] / unit, start.new_zeros(len(start)))
        damping = start.new_full((len(start),), _FIRST_DAMPING)
        cost = _cost(matched, state)
        for _ in range(_MOST_STEPS):
            moved = _moved(state, _step(matched, state, damping, focal))
            after = _cost(matched, moved)
            better = after < cost
            done = (cost - after).abs() <= _ENOUGH * cost
            state = state.where(better, moved)
            cost = torch.where(better, after, cost)
            damping = torch.where(better, (damping / 3).clamp_min(_LEAST_DAMPING), damping * 10)
            if bool(done.all()):
                break
        centers = state.centers * unit / _typical_distance(state.centers)
        return make_pose(state.rotations, centers), state.log_focal.exp()


@dataclass(frozen=True)
class _State:
    """World-from-camera rotations, camera centres and the logarithm of the focal length."""

    rotations: Float[Tensor, "b v 3 3"]
    centers: Float[Tensor, "b v 3"]
    log_focal: Float[Tensor, "b"]

    def where(self, chosen: Bool[Tensor, "b"], other: "_State") -> "_State":
        """The other state for the chosen scenes."""
        return _State(
            torch.where(chosen[:, None, None, None], other.rotations, self.rotations),
            torch.where(chosen[:, None, None], other.centers, self.centers),
            torch.where(chosen, other.log_focal, self.log_focal),
        )


def _typical_distance(centers: Float[Tensor, "b v 3"]) -> Float[Tensor, "b 1 1"]:
    """Mean distance from the first view."""
    away = torch.linalg.vector_norm(centers[:, 1:] - centers[:, :1], dim=-1)
    return away.mean(-1).clamp_min(_LEAST_LENGTH)[:, None, None]


def _relative(matched: MatchedViews, state: _State) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations of the views in their others' frames, directions to them there, and how far they are."""
    b, v, k = matched.others.shape
    index = matched.others.reshape(b, v * k)
    centers = select_views(state.centers, index).unflatten(1, (v, k))
    inverse = _other_from_world(matched, state)
    rotation = inverse @ state.rotations[:, :, None]
    translation = (inverse @ (state.centers[:, :, None] - centers)[..., None])[..., 0]
    length = torch.linalg.vector_norm(translation, dim=-1, keepdim=True).clamp_min(_LEAST_LENGTH)
    return rotation, translation / length, length[..., 0]


def _other_from_world(matched: MatchedViews, state: _State) -> Float[Tensor, "b v k 3 3"]:
    """Rotations from the world into the frames of each view's others."""
    b, v, k = matched.others.shape
    return select_views(state.rotations, matched.others.reshape(b, v * k)).unflatten(1, (v, k)).mT


def _with_focal(matched: MatchedViews, state: _State) -> Correspondences:
    return matched.pairs.with_focal_scale(state.log_focal.exp()[:, None, None])


def _cost(matched: MatchedViews, state: _State) -> Float[Tensor, "b"]:
    """What is minimised: robust squared distances (Geman-McClure) and the prior on the focal length."""
    rotation, direction, _ = _relative(matched, state)
    distance, _, _ = epipolar_distances(_with_focal(matched, state), rotation, direction)
    total = (matched.pairs.weights * penalty(distance.square())).flatten(1).sum(1)
    return total + 0.5 * (state.log_focal / _FOCAL_SPREAD).square()


def distance_slopes(
    pairs: Correspondences, rotation: Float[Tensor, "*b 3 3"], direction: Float[Tensor, "*b 3"]
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n 7"]]:
    """Distances from epipolar lines; their derivatives by a rotation after the pair's, its direction (as a
    vector, not a unit vector), and the logarithm of the focal length."""
    slopes = epipolar_slopes(pairs, rotation, direction)
    by_line = slopes.by_line / slopes.sigma[..., None]
    torque = torch.linalg.cross(by_line, direction[..., None, :].expand_as(by_line))
    by_rotation = torch.linalg.cross(slopes.turned, torque)
    by_direction = torch.linalg.cross(slopes.turned, by_line)
    # A longer focal length brings rays and matches nearer to the axis, and shrinks the deviations.
    nearer = F.pad(-pairs.rays[..., :2], (0, 1)) @ (hat(direction) @ rotation).mT
    by_focal = (by_line * nearer).sum(-1) - (pairs.points * slopes.lines[..., :2]).sum(-1) / slopes.sigma
    by_focal = by_focal + slopes.distance
    return slopes.distance, torch.cat([by_rotation, by_direction, by_focal[..., None]], -1)


def _step(
    matched: MatchedViews, state: _State, damping: Float[Tensor, "b"], focal: bool
) -> Float[Tensor, "b p"]:
    """A damped Gauss-Newton step: turn and shift of every view but the first, then the focal length."""
    rotation, direction, length = _relative(matched, state)
    distance, slopes = distance_slopes(_with_focal(matched, state), rotation, direction)
    weighted = (matched.pairs.weights * discount(distance, ROBUST))[..., None] * slopes
    normal, gradient = weighted.mT @ slopes, (weighted.mT @ distance[..., None])[..., 0]
    # Of few parameters a pair; what they are by those of the two views, per pair [7, 13].
    chain = _chain(matched, state, direction, length)
    normal, gradient = chain.mT @ normal @ chain, (chain.mT @ gradient[..., None])[..., 0]
    normal, gradient = _gathered(matched.others, normal, gradient)
    normal[:, -1, -1] += 1 / _FOCAL_SPREAD**2
    gradient[:, -1] += state.log_focal / _FOCAL_SPREAD**2
    if not focal:
        normal[:, -1], normal[:, :, -1], gradient[:, -1] = 0, 0, 0
    step = damped_step(normal, gradient, damping[:, None])
    return shortened(step, step.abs().amax(-1, keepdim=True))


def _chain(
    matched: MatchedViews,
    state: _State,
    direction: Float[Tensor, "b v k 3"],
    length: Float[Tensor, "b v k"],
) -> Float[Tensor, "b v k 7 13"]:
    """Derivatives of a pair's rotation, direction and log focal length by the turn and the shift of the view,
    those of the other view, and the log focal length."""
    b, v, k = matched.others.shape
    inverse = _other_from_world(matched, state)
    eye = torch.eye(3).to(direction)
    across = (eye - direction[..., :, None] * direction[..., None, :]) / length[..., None, None]
    by_shift = across @ inverse
    # Where the other view turns, the way to this one turns against it.
    by_turn = across @ hat(direction * length[..., None]) @ inverse
    chain = direction.new_zeros(b, v, k, 7, 13)
    chain[..., :3, 0:3], chain[..., :3, 6:9] = inverse, -inverse
    chain[..., 3:6, 3:6], chain[..., 3:6, 6:9], chain[..., 3:6, 9:12] = by_shift, by_turn, -by_shift
    chain[..., 6, 12] = 1
    return chain


def _gathered(
    others: Int[Tensor, "b v k"],
    normal: Float[Tensor, "b v k 13 13"],
    gradient: Float[Tensor, "b v k 13"],
) -> tuple[Float[Tensor, "b p p"], Float[Tensor, "b p"]]:
    """The pairs' equations added up for all views but the first, and the focal length."""
    b, v, k = others.shape
    size = 6 * v + 1
    own = torch.arange(v, device=others.device)[None, :, None].expand(b, v, k)
    six = torch.arange(6, device=others.device)
    last = torch.full((b, v, k, 1), 6 * v, device=others.device)
    place = torch.cat([6 * own[..., None] + six, 6 * others[..., None] + six, last], -1)
    flat = place[..., :, None] * size + place[..., None, :]
    whole = normal.new_zeros(b, size * size).scatter_add(1, flat.flatten(1), normal.flatten(1))
    total = gradient.new_zeros(b, size).scatter_add(1, place.flatten(1), gradient.flatten(1))
    return whole.unflatten(1, (size, size))[:, 6:, 6:], total[:, 6:]


def _moved(state: _State, step: Float[Tensor, "b p"]) -> _State:
    """The state after a step."""
    each = F.pad(step[:, :-1].unflatten(1, (-1, 6)), (0, 0, 1, 0))  # the first view stays
    return _State(
        so3_exp(each[..., :3]) @ state.rotations,
        state.centers + each[..., 3:],
        state.log_focal + step[:, -1],
    )
