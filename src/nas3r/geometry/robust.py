"""Robust least squares on few parameters: what poses are refined by."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ROBUST = 1.5  # standard deviations at which an observation counts a quarter
_PRIOR = 1e-3  # information about the parameters without any observation: keeps the equations solvable
_LONGEST_STEP = 0.35  # radians, units of length, or of the logarithm of a focal length


def discount(distance: Float[Tensor, "*b n"], scale: float) -> Float[Tensor, "*b n"]:
    """Weight of an observation in reweighted least squares (Geman-McClure): a quarter at the scale."""
    return 1 / (1 + (distance / scale).square()).square()


def penalty(squared: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """Robust loss (Geman-McClure): 0 at no distance, towards 1 far away.

    `discount` is the weight that belongs to it, its slope by the squared distance up to a constant.

    Args:
        squared: Squared distances in standard deviations.
    """
    squared = squared / ROBUST**2
    return squared / (1 + squared)


def mean_penalty(
    squared: Float[Tensor, "*b n"],
    weights: Float[Tensor, "*b n"],
    possible: Bool[Tensor, "*b n"] | None = None,
) -> Float[Tensor, "*b"]:
    """Weighted mean of `penalty`.

    Args:
        squared: Squared distances in standard deviations.
        weights: How much each counts.
        possible: Which are distances at all; the others cost 1.
    """
    costs = penalty(squared)
    if possible is not None:
        costs = torch.where(possible, costs, 1.0)
    return (weights * costs).sum(-1) / weights.sum(-1).clamp_min(1e-12)


def least_squares_step(
    slope: Float[Tensor, "*b n p"],
    distance: Float[Tensor, "*b n"],
    weight: Float[Tensor, "*b n 1"],
    damping: float,
) -> Float[Tensor, "*b p"]:
    """Gauss-Newton step of bounded length.

    Args:
        slope: Derivatives of the distances by the parameters.
        distance: In standard deviations.
        weight: How much each counts.
        damping: Relative, of the normal equations' diagonal.
    """
    weighted = weight * slope
    step = damped_step(weighted.mT @ slope, (weighted.mT @ distance[..., None])[..., 0], damping)
    return shortened(step, torch.linalg.vector_norm(step, dim=-1, keepdim=True))


def damped_step(
    normal: Float[Tensor, "*b p p"], gradient: Float[Tensor, "*b p"], damping: float | Float[Tensor, "*b 1"]
) -> Float[Tensor, "*b p"]:
    """Step to the minimum of damped normal equations (Levenberg-Marquardt).

    Args:
        normal: Matrix of the normal equations.
        gradient: Their right side, negative.
        damping: Relative, of the matrix's diagonal.
    """
    diagonal = _PRIOR + damping * normal.diagonal(dim1=-2, dim2=-1)
    return -torch.linalg.solve(normal + torch.diag_embed(diagonal), gradient[..., None])[..., 0]


def shortened(step: Float[Tensor, "*b p"], length: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b p"]:
    """A step of such a length, by whichever norm, no longer than linear models can be trusted."""
    return step * (_LONGEST_STEP / length.clamp_min(_LONGEST_STEP))
