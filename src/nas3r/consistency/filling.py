"""Depth where nothing is sure: the coarse one, moved as its surroundings were. Smooth, whatever the scale."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_PRIOR = 1e-3  # weight of "as it was", against that of pixels
_MOST = 0.7  # of the logarithm of a factor that a point may ask for


def filled(
    inverse: Float[Tensor, "v h w"], confidence: Float[Tensor, "v h w"], coarse: Float[Tensor, "v h w"]
) -> Float[Tensor, "v h w"]:
    """Inverse depth that is as found where it is sure, and follows the coarse one elsewhere.

    Args:
        inverse: As found.
        confidence: In [0, 1].
        coarse: Inverse depth to fall back on.
    """
    moved = (inverse / coarse).log()
    weight = confidence.square()
    smooth = spread(moved, weight)
    share = (confidence * 2).clamp_max(1)
    return coarse * (share * moved + (1 - share) * smooth).exp()


def carried_by(
    xy: Float[Tensor, "m 2"], depth: Float[Tensor, "m"], inverse: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """What to multiply depth by so that it meets points, between which the factor is smooth.

    Args:
        xy: Of the points, normalised image coordinates.
        depth: Of the points.
        inverse: Inverse depth of the view.
    """
    h, w = inverse.shape
    good = (depth > 0) & (xy > 0).all(-1) & (xy < 1).all(-1)
    xy, depth = xy[good], depth[good]
    at = (xy[:, 1] * h).long().clamp(0, h - 1) * w + (xy[:, 0] * w).long().clamp(0, w - 1)
    asked = (depth * inverse.flatten()[at]).log()
    fits = asked.abs() < _MOST
    weight = torch.zeros(h * w).index_add(0, at[fits], torch.ones(int(fits.sum())))
    total = torch.zeros(h * w).index_add(0, at[fits], asked[fits])
    mean = total / weight.clamp_min(1)
    return spread(mean.view(1, h, w), weight.clamp_max(1).view(1, h, w))[0].exp()


def spread(values: Float[Tensor, "v h w"], weight: Float[Tensor, "v h w"]) -> Float[Tensor, "v h w"]:
    """Means of the nearest values that have weight (a pyramid pulled down and pushed up); 0 far from all.

    Gortler et al., "The Lumigraph", SIGGRAPH 1996.
    """
    total, weight = (values * weight)[:, None], weight[:, None]
    pyramid = []
    while min(total.shape[-2:]) > 1:
        pyramid.append((total, weight))
        total = 4 * F.avg_pool2d(total, 2, ceil_mode=True, count_include_pad=False)
        weight = 4 * F.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    result = total / (weight + _PRIOR)
    for total, weight in reversed(pyramid):
        coarse = F.interpolate(result, size=total.shape[-2:], mode="bilinear")
        lack = (1 - weight).clamp_min(_PRIOR)
        result = (total + lack * coarse) / (weight + lack)
    return result[:, 0]
