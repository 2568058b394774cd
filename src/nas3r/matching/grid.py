"""Grids of cells: their centres, every second of them, and how sure a place in them can be."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LEAST_SIGMA = 0.3  # cells: matches are never surer than this


def thinned(rows: int, columns: int, stride: int, device: torch.device) -> Int[Tensor, "m"]:
    """Flat index of every `stride`-th cell of a grid along both axes."""
    index = torch.arange(rows * columns, device=device).unflatten(0, (rows, columns))
    return index[::stride, ::stride].flatten()


def cell_centers(rows: int, columns: int, like: Tensor) -> Float[Tensor, "n 2"]:
    """Centres of the cells of a grid, x and y from 0 to 1, row by row."""
    y = (torch.arange(rows, device=like.device) + 0.5) / rows
    x = (torch.arange(columns, device=like.device) + 0.5) / columns
    return torch.cartesian_prod(y, x).flip(-1)


def least_covariance(rows: int, columns: int, like: Tensor) -> Float[Tensor, "2 2"]:
    """Covariance that every match has at least."""
    return torch.diag(like.new_tensor([_LEAST_SIGMA / columns, _LEAST_SIGMA / rows]).square())


def bilinear(
    cells: Float[Tensor, "n q 2"], columns: int, rows: int
) -> tuple[Int[Tensor, "n q 4"], Float[Tensor, "n q 4"]]:
    """Flat indices and weights of the four cells around places."""
    low = cells.floor()
    part = cells - low
    index, weight = [], []
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x = (low[..., 0] + dx).clamp(0, columns - 1).long()
        y = (low[..., 1] + dy).clamp(0, rows - 1).long()
        index.append(y * columns + x)
        wx = part[..., 0] if dx else 1 - part[..., 0]
        weight.append(wx * (part[..., 1] if dy else 1 - part[..., 1]))
    return torch.stack(index, -1), torch.stack(weight, -1)
