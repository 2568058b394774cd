"""Depth maps from matches and motions: where the depth head starts from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry import Cameras, invert_pose
from nas3r.geometry.two_view import (
    Correspondences,
    Motion,
    inverse_depths,
    motion_at,
    robust_weights,
    translation_length,
)
from nas3r.models.solved import Matched, Solved
from nas3r.models.view_tree import pick

_MOST_INFORMATION = 1e4
_RELATIVE_RANGE = (0.05, 5.0)  # of inverse depth over its mean
_RELATIVE_NOISE = 0.3  # of it from point to point, whatever the matches say
_LEAST_LENGTH = 1e-6  # of a translation, in the unit of the poses
_PRIOR_INFORMATION = 0.3  # of the mean inverse depth, relative to the matches' average


@torch.no_grad()
def triangulated_depth(
    solved: Solved, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int], smoothing: float
) -> tuple[Float[Tensor, "b v h w"], Float[Tensor, "b v"]]:
    """Logarithm of a smooth depth map of every view, one value for a match, up to one scale for all.

    Triangulated inverse depths are averaged over neighbours by their information, and drawn towards their
    mean where there is none.

    Args:
        solved: Of all views of a context, of which the first was matched with one that was matched with it.
        intrinsics: Of the views.
        grid: Rows and columns of matches.
        smoothing: Standard deviation of the average, in matches.

    Returns:
        The maps, and how far every view is from the one that it was matched with, in the same unit.
    """
    pairs = solved.matches.alone().on_rays(intrinsics, pick(intrinsics, solved.parents))
    points = _points(pairs, solved.motion, torch.ones_like(solved.motion.cost))
    log_depth, typical = _smooth_depth(_Points.stack([points]), grid, smoothing)
    log_length = _log_lengths(solved, pairs, log_depth, typical)
    return log_depth + (log_length - typical)[..., None, None], log_length.exp()


@torch.no_grad()
def fused_depth(
    links: Sequence[Matched],
    cameras: Cameras,
    grid: tuple[int, int],
    smoothing: float,
) -> Float[Tensor, "b v h w"]:
    """The same from the matches of every view with several others, whose poses are known, in their unit.

    Args:
        links: All views of a context, matched with one other view after the other.
        cameras: Of the views.
        grid: Rows and columns of matches.
        smoothing: As above.
    """
    parts = []
    for one in links:
        pairs = one.matches.alone().on_rays(cameras.intrinsics, pick(cameras.intrinsics, one.parents))
        motion, length = relative_motion(pairs, cameras.world_from_camera, one.parents)
        parts.append(_points(pairs, motion, length))
    log_depth, typical = _smooth_depth(_Points.stack(parts), grid, smoothing)
    return log_depth - typical[..., None, None]


def relative_motion(
    pairs: Correspondences, poses: Float[Tensor, "b v 4 4"], parents: Int[Tensor, "b v"]
) -> tuple[Motion, Float[Tensor, "b v"]]:
    """Motions of views in the frames of other views, and the distances between them, from their poses.

    Args:
        pairs: Matches with those others.
        poses: World from camera.
        parents: Index of the others.
    """
    relative = invert_pose(pick(poses, parents)) @ poses
    length = torch.linalg.vector_norm(relative[..., :3, 3], dim=-1).clamp_min(_LEAST_LENGTH)
    return motion_at(pairs, relative[..., :3, :3], relative[..., :3, 3] / length[..., None]), length


@dataclass(frozen=True)
class _Points:
    """Triangulated points of every view, from its matches with some others.

    Attributes:
        estimate: Their inverse depths [b, v, k, n].
        information: About those.
        weights: How much the matches count.
    """

    estimate: Tensor
    information: Tensor
    weights: Tensor

    @staticmethod
    def stack(parts: "Sequence[_Points]") -> "_Points":
        """Points [b, v, n] from matches with one other view after the other."""
        return _Points(*(torch.stack([getattr(p, f.name) for p in parts], 2) for f in fields(_Points)))


def _points(pairs: Correspondences, motion: Motion, length: Float[Tensor, "b v"]) -> _Points:
    """Points in the unit that the length of the motion is given in."""
    estimate, information = inverse_depths(pairs, motion)
    weights = pairs.weights * robust_weights(pairs, motion)
    return _Points(estimate / length[..., None], information * length[..., None].square(), weights)


def _smooth_depth(
    points: _Points, grid: tuple[int, int], smoothing: float
) -> tuple[Float[Tensor, "b v h w"], Float[Tensor, "b v"]]:
    """Logarithm of depth relative to the view's typical one, and of that one's inverse.

    Args:
        points: Of every view.
        grid: Rows and columns of matches.
        smoothing: Standard deviation of the average, in matches.
    """
    estimate, information, weights = points.estimate, points.information, points.weights
    typical = typical_inverse_depth(estimate.flatten(2), (information * weights).flatten(2))[..., None]
    relative = (estimate / typical).clamp(*_RELATIVE_RANGE)
    information = weights / (1 / (information * typical.square()).clamp_min(1e-9) + _RELATIVE_NOISE**2)
    relative, information = (information * relative).sum(2), information.sum(2)

    def smooth(x: Float[Tensor, "b v n"]) -> Float[Tensor, "b v h w"]:
        return blurred(x.unflatten(2, grid), smoothing)

    mean = relative.sum(-1) / information.sum(-1).clamp_min(1e-9)
    prior = _PRIOR_INFORMATION * information.mean(-1)[..., None, None] + 1e-9
    inverse = (smooth(relative) + prior * mean[..., None, None]) / (smooth(information) + prior)
    return -inverse.clamp_min(_RELATIVE_RANGE[0]).log(), typical[..., 0, 0].log()


def _log_lengths(
    solved: Solved,
    pairs: Correspondences,
    log_depth: Float[Tensor, "b v h w"],
    typical: Float[Tensor, "b v"],
) -> Float[Tensor, "b v"]:
    """Logarithm of how far every view is from the one that it was matched with, in one unit.

    The first view and its partner see each other at one and the same distance; how far every other view is
    from the one it was matched with, the depth there tells.

    Args:
        solved: As for `triangulated_depth`.
        pairs: Its matches.
        log_depth: Relative depth maps.
        typical: Logarithm of the typical inverse depth in units of one over the pair's distance.
    """
    partner = solved.parents[:, :1]
    log_length = ((typical[:, :1] + pick(typical, partner)) / 2).expand_as(typical)
    tied = torch.arange(typical.shape[1], device=typical.device) == partner
    tied[:, 0] = True
    for _ in range(typical.shape[1] - 2):  # right after as many steps as the longest way has
        scaled = log_depth + (log_length - typical)[..., None, None]
        depth = solved.matches.look_up(pick(scaled, solved.parents)).exp()
        log_length = torch.where(tied, log_length, translation_length(pairs, solved.motion, depth).log())
    return log_length


def typical_inverse_depth(
    estimate: Float[Tensor, "b v n"], counts: Float[Tensor, "b v n"]
) -> Float[Tensor, "b v 1"]:
    """Mean inverse depth of a view, by information up to a limit."""
    counts = counts.clamp(max=_MOST_INFORMATION)
    mean = (counts * estimate).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp_min(1e-6)
    return mean.clamp_min(1e-3)


def blurred(x: Float[Tensor, "b v h w"], sigma: float) -> Float[Tensor, "b v h w"]:
    """Gaussian blur with zeros outside."""
    reach = math.ceil(3 * sigma)
    line = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = (kernel / kernel.sum()).to(x.dtype)
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel[None, None, None], padding=(0, reach))
    return F.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))[:, 0].unflatten(0, x.shape[:2])
