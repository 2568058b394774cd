"""Depth maps from matches and poses: where the depth head starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras, gaussian_blur, select_views
from nas3r.matching.matches import PairedMatches
from nas3r.solver.correspondences import Correspondences, calibrated
from nas3r.solver.pairs import PosedMatches, pose_between
from nas3r.solver.two_view import (
    RelativePose,
    inverse_depths,
    robust_weights,
    translation_length,
)

_MOST_INFORMATION = 1e4
_RELATIVE_RANGE = (0.05, 5.0)  # of inverse depth over its mean
_RELATIVE_NOISE = 0.3  # of it from point to point, whatever the matches say
_PRIOR_INFORMATION = 0.3  # of the mean inverse depth, relative to the matches' average


@torch.no_grad()
def triangulated_depth(
    solved: PosedMatches, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int], smoothing: float
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
    pairs = calibrated(solved.without_support(), intrinsics, intrinsics)
    points = _points(pairs, solved.pose, torch.ones_like(solved.pose.cost))
    log_depth, typical = _smooth_depth(_Points.stack([points]), grid, smoothing)
    log_length = _log_lengths(solved, pairs, log_depth, typical)
    return log_depth + (log_length - typical)[..., None, None], log_length.exp()


@torch.no_grad()
def fused_depth(
    matched: Sequence[PairedMatches],
    cameras: Cameras,
    grid: tuple[int, int],
    smoothing: float,
) -> Float[Tensor, "b v h w"]:
    """The same from the matches of every view with several others, whose poses are known, in their unit.

    Args:
        matched: All views of a context, matched with one other view after the other.
        cameras: Of the views.
        grid: Rows and columns of matches.
        smoothing: As above.
    """
    parts = []
    for one in matched:
        pairs = calibrated(one.without_support(), cameras.intrinsics, cameras.intrinsics)
        pose, length = pose_between(pairs, cameras.world_from_camera, one.references)
        parts.append(_points(pairs, pose, length))
    log_depth, typical = _smooth_depth(_Points.stack(parts), grid, smoothing)
    return log_depth - typical[..., None, None]


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


def _points(pairs: Correspondences, pose: RelativePose, length: Float[Tensor, "b v"]) -> _Points:
    """Points in the unit that the length of the pose is given in."""
    estimate, information = inverse_depths(pairs, pose)
    weights = pairs.weights * robust_weights(pairs, pose)
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
        return gaussian_blur(x.unflatten(2, grid), smoothing)

    mean = relative.sum(-1) / information.sum(-1).clamp_min(1e-9)
    prior = _PRIOR_INFORMATION * information.mean(-1)[..., None, None] + 1e-9
    inverse = (smooth(relative) + prior * mean[..., None, None]) / (smooth(information) + prior)
    return -inverse.clamp_min(_RELATIVE_RANGE[0]).log(), typical[..., 0, 0].log()


def _log_lengths(
    solved: PosedMatches,
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
    partner = solved.references[:, :1]
    log_length = ((typical[:, :1] + select_views(typical, partner)) / 2).expand_as(typical)
    tied = torch.arange(typical.shape[1], device=typical.device) == partner
    tied[:, 0] = True
    for _ in range(typical.shape[1] - 2):  # right after as many steps as the longest way has
        scaled = log_depth + (log_length - typical)[..., None, None]
        depth = solved.matches.look_up(select_views(scaled, solved.references)).exp()
        log_length = torch.where(tied, log_length, translation_length(pairs, solved.pose, depth).log())
    return log_length


def typical_inverse_depth(
    estimate: Float[Tensor, "b v n"], counts: Float[Tensor, "b v n"]
) -> Float[Tensor, "b v 1"]:
    """Mean inverse depth of a view, by information up to a limit."""
    counts = counts.clamp(max=_MOST_INFORMATION)
    mean = (counts * estimate).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp_min(1e-6)
    return mean.clamp_min(1e-3)
