"""Two-dimensional rotary position embedding."""

import torch
from jaxtyping import Float
from torch import Tensor

RopeTable = tuple[Tensor, Tensor]
"""Cosines and sines, each [n, 2, d / 4]: of n tokens, for rows and columns."""


def grid_positions(
    rows: int,
    columns: int,
    *,
    start: int = 0,
    of: tuple[int, int] | None = None,
    device: torch.device | None = None,
) -> Float[Tensor, "n 2"]:
    """(row, column) of every patch, row by row.

    Args:
        rows: Of the grid.
        columns: Of the grid.
        start: Where counting starts.
        of: Rows and columns of the finer grid over the same image that positions refer to, if another: a
            patch is then at the mean position of those it covers.
        device: Of the result.
    """
    finer = of or (rows, columns)
    r, c = (
        (torch.arange(n, device=device) + 0.5) * (fine / n) - 0.5 + start
        for n, fine in zip((rows, columns), finer, strict=True)
    )
    return torch.cartesian_prod(r, c).reshape(-1, 2)


def rope_table(positions: Float[Tensor, "n 2"], head_width: int, base: float = 100.0) -> RopeTable:
    """Rotation angles' cosines and sines for tokens at (row, column) positions.

    The first half of a head's channels turns with the row, the second half with the column. Within a half
    of m = head_width / 2 channels, channels k and k + m / 2 form a plane that turns by
    position * base^(-2 k / m).
    Source: Su et al., "RoFormer", eq. 15, once per axis.
    """
    m = head_width // 2
    k = torch.arange(m // 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None] * base ** (-2 * k / m)
    return angles.cos(), angles.sin()


def repeat_views(table: RopeTable, views: int) -> RopeTable:
    """Table for the concatenated tokens of several views; positions start anew in each."""
    return table[0].repeat(views, 1, 1), table[1].repeat(views, 1, 1)


def inverse(table: RopeTable) -> RopeTable:
    """Table that turns everything back."""
    return table[0], -table[1]


def rotate(x: Float[Tensor, "*b n d"], table: RopeTable) -> Float[Tensor, "*b n d"]:
    """Rotated queries, keys or values."""
    cos, sin = table
    a, b = x.unflatten(-1, (2, 2, x.shape[-1] // 4)).unbind(-2)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -2).flatten(-3).to(x.dtype)
