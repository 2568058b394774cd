"""Matches of the cells of a view in another view, as distributions over places."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.matching.grid import cell_centers, least_covariance, thinned
from nas3r.matching.matches import Matches

_SHARPNESS = 80.0  # of the softmax over similarities
_DOUBT, _TRUST = 1e-3, 1.0  # of what is believed before: added to it, and the power of it
_LEAST_LIKENESS = 1e-30  # of a cell that is like nothing: its matches count for nothing


def match_cells(
    features: Float[Tensor, "b v c h w"],
    reference: Float[Tensor, "b #v c h w"],
    stride: int,
    belief: Float[Tensor, "b v th tw uh uw"] | None = None,
) -> Matches:
    """Every `stride`-th cell of the views, along both axes, among all cells of their reference.

    Matching is mutual: a cell counts as far as it is also the best match of what it was matched with.

    Args:
        features: Of the cells of the views.
        reference: Of the cells of the views that they are looked for in.
        stride: Cells per query.
        belief: What is known before: probabilities that squares of cells and squares of the reference belong
            together. Likeness is weighed by it, and a match counts as far as its squares do.
    """
    h, w = features.shape[-2:]
    queries = _SHARPNESS * features[..., ::stride, ::stride].flatten(3)
    # Similarities are 1 at most: with a constant offset nothing overflows, and both softmaxes share one exp.
    likeness = (queries.mT @ reference.flatten(3)).sub_(_SHARPNESS / 2).exp_()
    grid = cell_centers(h, w, features)
    forward = 1 / likeness.sum(-1, keepdim=True).clamp_min(_LEAST_LIKENESS)
    moments = _moments(likeness, forward, grid)  # belief does not say how exact a place is
    believed = None
    if belief is not None:
        believed = _on_cells(belief, h, w)
        _weigh(likeness, believed, h // stride, w // stride)
        forward = 1 / likeness.sum(-1, keepdim=True).clamp_min(_LEAST_LIKENESS)
    backward = 1 / likeness.sum(-2, keepdim=True).clamp_min(_LEAST_LIKENESS)
    best = (likeness * backward.sqrt()).argmax(-1)  # of the product of both probabilities
    near, inside = (table[best] for table in _neighbours(h, w, features.device))
    nearby = likeness.gather(-1, near)
    local = forward * nearby * inside
    mutual = local * nearby * backward.expand(*best.shape, h * w).gather(-1, near)
    local = local / local.sum(-1, keepdim=True).clamp_min(1e-12)
    found = (local[..., None] * grid[near]).sum(-2)
    weights = (stride**2 * mutual.sum(-1)).clamp(max=1.0)  # so many cells of the reference per query
    if believed is not None:
        weights = weights * _at(believed, best, h // stride, w // stride)
    return Matches(
        places=grid[thinned(h, w, stride, grid.device)].expand_as(found),
        found=found,
        covariances=_spread(moments, found) + least_covariance(h, w, grid),
        weights=weights,
        support=torch.ones_like(mutual[..., 0]),
    )


def _on_cells(belief: Float[Tensor, "b v th tw uh uw"], h: int, w: int) -> Float[Tensor, "b v th tw m"]:
    """What is believed of squares and of the cells of the reference."""
    cells = F.interpolate(belief.flatten(0, 3)[:, None], (h, w), mode="bilinear")
    return cells.flatten(1).unflatten(0, belief.shape[:4])


def _weigh(
    likeness: Float[Tensor, "b v n m"], believed: Float[Tensor, "b v th tw m"], rows: int, columns: int
) -> None:
    """Multiplies the likeness of queries by what is believed of the squares that they lie in."""
    th, tw = believed.shape[2:4]
    weight = (believed + _DOUBT).pow_(_TRUST)[:, :, :, None, :, None]
    likeness.view(*likeness.shape[:2], th, rows // th, tw, columns // tw, -1).mul_(weight)


def _at(
    believed: Float[Tensor, "b v th tw m"], index: Int[Tensor, "b v n"], rows: int, columns: int
) -> Float[Tensor, "b v n"]:
    """What is believed of every query and one cell of the reference."""
    th, tw, cells = believed.shape[2:]
    y = torch.arange(rows, device=index.device)[:, None] // (rows // th)
    x = torch.arange(columns, device=index.device) // (columns // tw)
    square = (y * tw + x).flatten()
    return believed.flatten(2).gather(2, square * cells + index)


def _neighbours(h: int, w: int, device: torch.device) -> tuple[Int[Tensor, "n 9"], Bool[Tensor, "n 9"]]:
    """Flat index of the 3 x 3 cells around every cell, and whether they lie inside the map."""
    offset = torch.arange(-1, 2, device=device)
    rows = torch.arange(h, device=device)[:, None, None, None] + offset[:, None]
    columns = torch.arange(w, device=device)[:, None, None] + offset
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    index = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
    return index.reshape(h * w, 9), inside.reshape(h * w, 9)


def _moments(
    likeness: Float[Tensor, "b v n m"], scale: Float[Tensor, "b v n 1"], grid: Float[Tensor, "m 2"]
) -> Float[Tensor, "b v n 6"]:
    """Second and first moments of places; scaled likenesses are probabilities."""
    products = (grid[:, :, None] * grid[:, None]).flatten(1)
    return scale * (likeness @ torch.cat([products, grid], 1))


def _spread(
    moments: Float[Tensor, "b v n 6"], center: Float[Tensor, "b v n 2"]
) -> Float[Tensor, "b v n 2 2"]:
    """Second moments of places around their centre."""
    second, mean = moments[..., :4].unflatten(-1, (2, 2)), moments[..., 4:]
    cross = mean[..., :, None] * center[..., None, :]
    return second - cross - cross.mT + center[..., :, None] * center[..., None, :]
