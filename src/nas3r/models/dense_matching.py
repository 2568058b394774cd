"""Matches of the cells of a view in another view, as distributions over places."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.models.solved import Matches

_COARSE_SHARPNESS = 80.0  # of the softmax over similarities
_FINE_SHARPNESS = 30.0
_LEAST_LIKENESS = 1e-30  # of a cell that is like nothing: its matches count for nothing
_FINE_RADIUS = 2  # of the window around a match in which it is sharpened
_UNSURE = 3.0  # cells of standard deviation from which a match is not sharpened
_LEAST_SIGMA = 0.3  # cells: matches are never surer than this
_NEIGHBOURS = 2  # queries on each side that a match is compared with
_ALIKE = 1.0  # distance of queries: displacements that differ by less are alike
_STRICTNESS = 1.5  # power of what they say


def match_cells(
    features: Float[Tensor, "b v c h w"], reference: Float[Tensor, "b #v c h w"], stride: int
) -> Matches:
    """Every `stride`-th cell of the views, along both axes, among all cells of their reference.

    Matching is mutual: a cell counts as far as it is also the best match of what it was matched with.
    """
    h, w = features.shape[-2:]
    queries = _COARSE_SHARPNESS * features[..., ::stride, ::stride].flatten(3)
    # Similarities are 1 at most: with a constant offset nothing overflows, and both softmaxes share one exp.
    likeness = (queries.mT @ reference.flatten(3)).sub_(_COARSE_SHARPNESS / 2).exp_()
    forward = 1 / likeness.sum(-1, keepdim=True).clamp_min(_LEAST_LIKENESS)
    backward = 1 / likeness.sum(-2, keepdim=True).clamp_min(_LEAST_LIKENESS)
    best = (likeness * backward.sqrt()).argmax(-1)  # of the product of both probabilities
    near, inside = (table[best] for table in _neighbours(h, w, features.device))
    there = likeness.gather(-1, near)
    local = forward * there * inside
    mutual = local * there * backward.expand(*best.shape, h * w).gather(-1, near)
    grid = cell_centers(h, w, features)
    local = local / local.sum(-1, keepdim=True).clamp_min(1e-12)
    found = (local[..., None] * grid[near]).sum(-2)
    return Matches(
        places=grid[thinned(h, w, stride, grid.device)].expand_as(found),
        found=found,
        covariances=_spread(likeness, forward, grid, found) + _least_covariance(h, w, grid),
        weights=(stride**2 * mutual.sum(-1)).clamp(max=1.0),  # so many cells of the reference per query
        support=torch.ones_like(mutual[..., 0]),
    )


def supported(matches: Matches, rows: int, columns: int) -> Matches:
    """Matches that know how far their neighbours went the same way; wrong ones go anywhere.

    Support is the mean weight of that half of the neighbours whose displacements are most alike: at an edge
    of depth, the other half went elsewhere (softly what Bian et al. count, "GMS: Grid-based Motion
    Statistics", CVPR 2017).

    Args:
        matches: Of a grid of queries.
        rows: Of that grid.
        columns: Likewise.
    """
    grid = matches.found.new_tensor([columns, rows])
    moved = ((matches.found - matches.places) * grid).unflatten(2, (rows, columns))
    weights = matches.weights.unflatten(2, (rows, columns))
    shifts = list(_shifts(rows, columns))
    votes = weights.new_zeros(len(shifts), *weights.shape)
    for vote, (here, there) in zip(votes, shifts, strict=True):
        apart = (moved[..., *here, :] - moved[..., *there, :]).square().sum(-1) / _ALIKE**2
        vote[..., *here] = weights[..., *there] / (1 + apart.square())
    half = votes.topk(len(votes) // 2, dim=0).values.mean(0)
    return replace(matches, support=half.pow(_STRICTNESS).flatten(2))


def sharpened(
    matches: Matches,
    features: Float[Tensor, "b v c h w"],
    reference: Float[Tensor, "b v c h w"],
    stride: int,
) -> Matches:
    """Matches found again on a finer grid, near where they were; unsure ones stay unsure.

    Args:
        matches: Of a coarser grid.
        features: On the finer grid, of which every `stride`-th cell along both axes is a query.
        reference: Likewise.
        stride: Cells per query.
    """
    h, w = features.shape[-2:]
    size = matches.found.new_tensor([w, h])
    queries = features[..., ::stride, ::stride].flatten(3).mT
    grid = cell_centers(h, w, features)
    places = grid[thinned(h, w, stride, grid.device)].expand_as(matches.places)
    step = torch.arange(-_FINE_RADIUS, _FINE_RADIUS + 1, device=features.device)
    offsets = torch.cartesian_prod(step, step).flip(-1)
    guess = matches.found + places - matches.places
    cells = (guess * size - 0.5).round().long()[..., None, :] + offsets
    inside = ((cells >= 0) & (cells < size)).all(-1)
    x, y = cells[..., 0].clamp(0, w - 1), cells[..., 1].clamp(0, h - 1)
    index = (y * w + x).flatten(2)
    there = reference.flatten(3).mT.flatten(0, 1)
    maps = torch.arange(len(there), device=there.device)[:, None] * (h * w)
    window = F.embedding(index.flatten(0, 1) + maps, there.flatten(0, 1)).view(*x.shape, -1)
    logits = _FINE_SHARPNESS * (window @ queries[..., None])[..., 0]
    probability = logits.masked_fill(~inside, -1e4).softmax(-1)
    positions = (cells + 0.5) / size
    found = (probability[..., None] * positions).sum(-2)
    off = positions - found[..., None, :]
    covariances = off.mT @ (probability[..., None] * off) + _least_covariance(h, w, found)
    variance = matches.covariances.diagonal(dim1=-2, dim2=-1).sum(-1)
    unsure = variance > (2 * _UNSURE / size.amax()).square()
    return Matches(
        places=places,
        found=found,
        covariances=torch.where(unsure[..., None, None], matches.covariances, covariances),
        weights=matches.weights,
        support=matches.support,
    )


def thinned(rows: int, columns: int, step: int, device: torch.device) -> Int[Tensor, "m"]:
    """Flat index of every `step`-th cell of a grid along both axes."""
    index = torch.arange(rows * columns, device=device).unflatten(0, (rows, columns))
    return index[::step, ::step].flatten()


def cell_centers(rows: int, columns: int, like: Tensor) -> Float[Tensor, "n 2"]:
    """Centres of the cells of a grid, x and y from 0 to 1, row by row."""
    y = (torch.arange(rows, device=like.device) + 0.5) / rows
    x = (torch.arange(columns, device=like.device) + 0.5) / columns
    return torch.cartesian_prod(y, x).flip(-1)


def _neighbours(h: int, w: int, device: torch.device) -> tuple[Int[Tensor, "n 9"], Bool[Tensor, "n 9"]]:
    """Flat index of the 3 x 3 cells around every cell, and whether they lie inside the map."""
    step = torch.arange(-1, 2, device=device)
    rows = torch.arange(h, device=device)[:, None, None, None] + step[:, None]
    columns = torch.arange(w, device=device)[:, None, None] + step
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    index = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
    return index.reshape(h * w, 9), inside.reshape(h * w, 9)


def _shifts(rows: int, columns: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For every neighbour: the part of a grid that has it, and the part that is it."""
    step = range(-_NEIGHBOURS, _NEIGHBOURS + 1)
    for dy, dx in itertools.product(step, step):
        if dy or dx:
            here = slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx))
            there = slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), columns - max(0, -dx))
            yield here, there


def _least_covariance(rows: int, columns: int, like: Tensor) -> Float[Tensor, "2 2"]:
    return torch.diag(like.new_tensor([_LEAST_SIGMA / columns, _LEAST_SIGMA / rows]).square())


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
