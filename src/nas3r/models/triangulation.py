"""Depth maps from matches and motions: where the depth head starts from."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.two_view import Correspondences, inverse_depths, robust_weights, translation_length
from nas3r.models.solved import Solved
from nas3r.models.view_tree import pick

_MOST_INFORMATION = 1e4
_RELATIVE_RANGE = (0.05, 5.0)  # of inverse depth over its mean
_RELATIVE_NOISE = 0.3  # of it from point to point, whatever the matches say
_PRIOR_INFORMATION = 0.3  # of the mean inverse depth, relative to the matches' average


@torch.no_grad()
def triangulated_depth(
    solved: Solved, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int], smoothing: float
) -> Float[Tensor, "b v h w"]:
    """Logarithm of a smooth depth map of every view, one value for a match, up to one scale for all.

    Triangulated inverse depths are averaged over neighbours by their information, and drawn towards their
    mean where there is none.

    Args:
        solved: Of all views of a context, of which the first was matched with one that was matched with it.
        intrinsics: Of the views.
        grid: Rows and columns of matches.
        smoothing: Standard deviation of the average, in matches.
    """
    pairs = solved.matches.on_rays(intrinsics, pick(intrinsics, solved.parents))
    estimate, information = inverse_depths(pairs, solved.motion)
    weights = pairs.weights * robust_weights(pairs, solved.motion)
    typical = typical_inverse_depth(estimate, information * weights)
    relative = (estimate / typical).clamp(*_RELATIVE_RANGE)
    information = weights / (1 / (information * typical.square()).clamp_min(1e-9) + _RELATIVE_NOISE**2)

    def smooth(x: Float[Tensor, "b v n"]) -> Float[Tensor, "b v h w"]:
        return _blurred(x.unflatten(2, grid), smoothing)

    mean = (information * relative).sum(-1) / information.sum(-1).clamp_min(1e-9)
    prior = _PRIOR_INFORMATION * information.mean(-1)[..., None, None] + 1e-9
    inverse = (smooth(information * relative) + prior * mean[..., None, None]) / (smooth(information) + prior)
    log_depth = -inverse.clamp_min(_RELATIVE_RANGE[0]).log()
    return log_depth + _common_scale(solved, pairs, log_depth, typical[..., 0].log())[..., None, None]


def _common_scale(
    solved: Solved,
    pairs: Correspondences,
    log_depth: Float[Tensor, "b v h w"],
    typical: Float[Tensor, "b v"],
) -> Float[Tensor, "b v"]:
    """What to add to log-depths that are relative to their view's typical one.

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
    return log_length - typical


def typical_inverse_depth(
    estimate: Float[Tensor, "b v n"], counts: Float[Tensor, "b v n"]
) -> Float[Tensor, "b v 1"]:
    """Mean inverse depth of a view, by information up to a limit."""
    counts = counts.clamp(max=_MOST_INFORMATION)
    mean = (counts * estimate).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp_min(1e-6)
    return mean.clamp_min(1e-3)


def _blurred(x: Float[Tensor, "b v h w"], sigma: float) -> Float[Tensor, "b v h w"]:
    """Gaussian blur with zeros outside."""
    reach = math.ceil(3 * sigma)
    line = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = (kernel / kernel.sum()).to(x.dtype)
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel[None, None, None], padding=(0, reach))
    return F.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))[:, 0].unflatten(0, x.shape[:2])
