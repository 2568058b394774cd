"""Parts that rooms share: the shell and its materials, what stands on the floor, what hangs on walls."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.families.scenes import xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, ROOM


def add_room_shell(layout: Layout, half: Tensor, walls: Tensor) -> None:
    """The room itself: its sides show the material of the wall behind them (-x, +x, up, floor, -z, +z)."""
    zero = torch.zeros_like(half[:, 0])
    center = xyz(zero, -half[:, 1], zero)[:, None]
    layout.add(ROOM, center, half[:, None], walls[:, None])


def wall_materials(layout: Layout, same: float) -> Tensor:
    """Materials of a room's six sides; a share `same` of rooms has one material on all walls."""
    draws = layout.draws
    walls = layout.materials("wall", 4)
    walls = torch.where(draws.chance(same, 1), walls[:, :1], walls)
    ceiling, floor = layout.materials("ceiling", 1), layout.materials("floor", 1)
    # Sides are named by the inward normal: what faces +x (inwards) is the wall at -x.
    return torch.cat([walls[:, :2], floor, ceiling, walls[:, 2:]], -1)


def standing_on_floor(
    layout: Layout, k: int, area: Tensor, half: Tensor, edge: float
) -> Float[Tensor, "n k 3"]:
    """Places on a floor of half extents `area` [n, 2]; a share `edge` of them pushed against a wall."""
    draws = layout.draws
    xz = draws.uniform(k, 2, low=-1.0)
    side = draws.chance(0.5, k)
    pushed = draws.chance(edge, k)
    sign = draws.sign(k)
    x = torch.where(pushed & side, sign, xz[..., 0]) * (area[:, None, 0] - half[..., 0]).clamp_min(0)
    z = torch.where(pushed & ~side, sign, xz[..., 1]) * (area[:, None, 1] - half[..., 2]).clamp_min(0)
    return xyz(x, -half[..., 1], z)


def add_sheets_on_walls(layout: Layout, k: int, room: Tensor, role: str, low: float, high: float) -> None:
    """Thin panels (posters, doors, windows, boards) on the walls of a room of half extents `room` [n, 3]."""
    draws = layout.draws
    wide, tall = draws.log_uniform(k, low=low, high=high), draws.log_uniform(k, low=low, high=high)
    thin = draws.log_uniform(k, low=0.01, high=0.06)
    on_x = draws.chance(0.5, k)
    half = torch.where(on_x[..., None], xyz(thin, tall, wide), xyz(wide, tall, thin))
    along = draws.uniform(k, low=-0.85, high=0.85)
    sign = draws.sign(k)
    x = torch.where(on_x, sign, along) * room[:, None, 0]
    z = torch.where(on_x, along, sign) * room[:, None, 2]
    y = -2 * room[:, None, 1] * draws.uniform(k, low=0.2, high=0.8)
    layout.add(BOX, xyz(x, y, z), half, layout.materials(role, k), present=0.7)
