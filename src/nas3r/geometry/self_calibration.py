"""A focal length from correspondences alone: the one with which they fit epipolar geometry best.

Rotation and forward motion bend the field of displacements in ways that depend on the focal length. A pair of
views says little, so the costs of all pairs of a scene are added to a prior.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.rotation import so3_exp, so3_log
from nas3r.geometry.two_view import Correspondences, Motion, epipolar_cost, refine_motion

_STEP = 0.17  # of the logarithm
_SHORTER, _LONGER = 4, 3  # steps that are tried: factors from 0.5 to 1.7
_SPREAD = 0.25  # prior standard deviation of the logarithm
_TRUST = 400.0  # in one pair's cost: what gave the least errors on generated worlds
_REFINEMENTS = 2


def calibrate_focal(pairs: Correspondences, motion: Motion) -> tuple[Float[Tensor, "*b"], Motion]:
    """How much longer the focal length is than was assumed, and the motions that follow. No gradient.

    Args:
        pairs: Of several pairs of one camera's views [*b, v, n], with an assumed focal length.
        motion: Their motions, with the same [*b, v].
    """
    with torch.no_grad():
        costs = torch.stack(focal_costs(pairs, motion), -1).sum(-2)
        steps = torch.arange(-_SHORTER, _LONGER + 1, dtype=costs.dtype, device=costs.device) * _STEP
        likely = (-_TRUST * costs - 0.5 * (steps / _SPREAD).square()).softmax(-1)
        factor = (likely * steps).sum(-1).exp()
        each = factor[..., None]
        return factor, refine_motion(pairs.refocused(each), _zoomed(motion, each), iterations=5)


def focal_costs(pairs: Correspondences, motion: Motion) -> list[Float[Tensor, "*b v"]]:
    """Epipolar costs with focal lengths from the shortest to the longest that are tried."""
    costs = [epipolar_cost(pairs, motion)]
    for direction, count in ((-1, _SHORTER), (1, _LONGER)):
        moved = motion
        ratio = motion.cost.new_tensor(direction * _STEP).exp()
        for i in range(1, count + 1):
            there = pairs.refocused(ratio**i)
            moved = refine_motion(there, _zoomed(moved, ratio), iterations=_REFINEMENTS)
            costs.insert(0 if direction < 0 else len(costs), epipolar_cost(there, moved))
    return costs


def _zoomed(motion: Motion, ratio: Float[Tensor, "*#b"]) -> Motion:
    """About the motion that moves the image alike when the focal length is longer by a ratio."""
    r = ratio[..., None].expand_as(motion.direction[..., :1])
    direction = F.normalize(motion.direction * torch.cat([1 / r, 1 / r, torch.ones_like(r)], -1), dim=-1)
    return replace(motion, rotation=so3_exp(so3_log(motion.rotation) / r), direction=direction)
