"""Matches of the cells of a view in another view, as distributions over places."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.matching.grid import cell_centers, least_covariance, thinned
from nas3r.matching.matches import Matches

_SHARPNESS = 80.0  # of the softmax over similarities
_DOUBT, _TRUST = 1e-3, 1.0  # of what is believed before: added to it, and the power of it
_LEAST_LIKENESS = 1e-30  # of a cell that is like nothing: its matches count for nothing


@dataclass(frozen=True)
class Belief:
    """What is known of squares of cells before cells are compared.

    Attributes:
        together: Probability that they and squares of the reference choose each other.
        seen: Probability that the reference shows them.
    """

    together: Float[Tensor, "b v th tw uh uw"]
    seen: Float[Tensor, "b v th tw"]


def match_cells(
    features: Float[Tensor, "b v c h w"],
    reference: Float[Tensor, "b #v c h w"],
    stride: int,
    belief: Belief | None = None,
) -> Matches:
    """Every `stride`-th cell of the views, along both axes, among all cells of their reference.

    Matching is mutual: a cell counts as far as it is also the best match of what it was matched with.

    Args:
        features: Of the cells of the views.
        reference: Of the cells of the views that they are looked for in.
        stride: Cells per query.
        belief: What is known before.
    """
    h, w = features.shape[-2:]
    queries = _SHARPNESS * features[..., ::stride, ::stride].flatten(3)
    # Similarities are 1 at most: with a constant offset nothing overflows, and both softmaxes share one exp.
    likeness = (queries.mT @ reference.flatten(3)).sub_(_SHARPNESS / 2).exp_()
    if belief is not None:
        _weigh(likeness, belief.together, h, w, stride)
    forward = 1 / likeness.sum(-1, keepdim=True).clamp_min(_LEAST_LIKENESS)
    backward = 1 / likeness.sum(-2, keepdim=True).clamp_min(_LEAST_LIKENESS)
    best = (likeness * backward.sqrt()).argmax(-1)  # of the product of both probabilities
    near, inside = (table[best] for table in _neighbours(h, w, features.device))
    nearby = likeness.gather(-1, near)
    local = forward * nearby * inside
    mutual = local * nearby * backward.expand(*best.shape, h * w).gather(-1, near)
    grid = cell_centers(h, w, features)
    local = local / local.sum(-1, keepdim=True).clamp_min(1e-12)
    found = (local[..., None] * grid[near]).sum(-2)
    weights = (stride**2 * mutual.sum(-1)).clamp(max=1.0)  # so many cells of the reference per query
    if belief is not None:
        seen = F.interpolate(belief.seen, (h // stride, w // stride), mode="bilinear")
        weights = weights * seen.flatten(2)
    return Matches(
        places=grid[thinned(h, w, stride, grid.device)].expand_as(found),
        found=found,
        covariances=_spread(likeness, forward, grid, found) + least_covariance(h, w, grid),
        weights=weights,
        support=torch.ones_like(mutual[..., 0]),
    )


def _weigh(
    likeness: Float[Tensor, "b v n m"],
    together: Float[Tensor, "b v th tw uh uw"],
    h: int,
    w: int,
    stride: int,
) -> None:
    """Multiplies likeness by what is believed of the squares that cells lie in; neighbours are let in."""
    rows, columns = together.shape[2:4]
    near = F.max_pool2d(together.flatten(0, 3)[:, None], 3, 1, 1)
    cells = F.interpolate(near, (h, w), mode="bilinear").flatten(1)
    weight = (cells + _DOUBT).pow_(_TRUST).view(*together.shape[:2], rows, 1, columns, 1, h * w)
    likeness.unflatten(2, (rows, h // stride // rows, columns, w // stride // columns)).mul_(weight)


def _neighbours(h: int, w: int, device: torch.device) -> tuple[Int[Tensor, "n 9"], Bool[Tensor, "n 9"]]:
    """Flat index of the 3 x 3 cells around every cell, and whether they lie inside the map."""
    offset = torch.arange(-1, 2, device=device)
    rows = torch.arange(h, device=device)[:, None, None, None] + offset[:, None]
    columns = torch.arange(w, device=device)[:, None, None] + offset
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    index = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
    return index.reshape(h * w, 9), inside.reshape(h * w, 9)


def _spread(
    likeness: Float[Tensor, "b v n m"],
    scale: Float[Tensor, "b v n 1"],
    grid: Float[Tensor, "m 2"],
    center: Float[Tensor, "b v n 2"],
) -> Float[Tensor, "b v n 2 2"]:
    """Second moments of places around their centre; scaled likenesses are probabilities."""
    products = (grid[:, :, None] * grid[:, None]).flatten(1)
    moments = scale * (likeness @ torch.cat([products, grid], 1))
    second, mean = moments[..., :4].unflatten(-1, (2, 2)), moments[..., 4:]
    cross = mean[..., :, None] * center[..., None, :]
    return second - cross - cross.mT + center[..., :, None] * center[..., None, :]
