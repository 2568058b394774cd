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
