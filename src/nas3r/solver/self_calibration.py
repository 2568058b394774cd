"""A focal length from correspondences alone: the one with which they fit epipolar geometry best.

Rotation and forward pose bend the field of displacements in ways that depend on the focal length. A pair of
views says little, so the costs of all pairs of a scene are added to a prior.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.rotation import so3_exp, so3_log
from nas3r.solver.correspondences import Correspondences
from nas3r.solver.two_view import RelativePose, epipolar_cost, refine_relative_pose

_SPACING = 0.17  # of the logarithm
_SHORTER, _LONGER = 4, 3  # spacings that are tried: factors from 0.5 to 1.7
_SPREAD = 0.25  # prior standard deviation of the logarithm
_TRUST = 400.0  # in one pair's cost: what gave the least errors on generated worlds
_REFINEMENTS = 2


def calibrate_focal(pairs: Correspondences, pose: RelativePose) -> tuple[Float[Tensor, "*b"], RelativePose]:
    """How much longer the focal length is than was assumed, and the poses that follow. No gradient.

    Args:
        pairs: Of several pairs of one camera's views [*b, v, n], with an assumed focal length.
        pose: Their poses, with the same [*b, v].
    """
    with torch.no_grad():
        costs = torch.stack(focal_costs(pairs, pose), -1).sum(-2)
        offsets = torch.arange(-_SHORTER, _LONGER + 1, dtype=costs.dtype, device=costs.device) * _SPACING
        likely = (-_TRUST * costs - 0.5 * (offsets / _SPREAD).square()).softmax(-1)
        factor = (likely * offsets).sum(-1).exp()
        each = factor[..., None]
        return factor, refine_relative_pose(
            pairs.with_focal_scale(each), _with_focal_scale(pose, each), iterations=5
        )


def focal_costs(pairs: Correspondences, pose: RelativePose) -> list[Float[Tensor, "*b v"]]:
    """Epipolar costs with focal lengths from the shortest to the longest that are tried."""
    costs = [epipolar_cost(pairs, pose)]
    for direction, count in ((-1, _SHORTER), (1, _LONGER)):
        moved = pose
        ratio = pose.cost.new_tensor(direction * _SPACING).exp()
        for i in range(1, count + 1):
            scaled = pairs.with_focal_scale(ratio**i)
            moved = refine_relative_pose(scaled, _with_focal_scale(moved, ratio), iterations=_REFINEMENTS)
            costs.insert(0 if direction < 0 else len(costs), epipolar_cost(scaled, moved))
    return costs


def _with_focal_scale(pose: RelativePose, ratio: Float[Tensor, "*#b"]) -> RelativePose:
    """About the pose that moves the image alike when the focal length is longer by a ratio."""
    r = ratio[..., None].expand_as(pose.direction[..., :1])
    direction = F.normalize(pose.direction * torch.cat([1 / r, 1 / r, torch.ones_like(r)], -1), dim=-1)
    return replace(pose, rotation=so3_exp(so3_log(pose.rotation) / r), direction=direction)
