"""Furnished rooms."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families.indoors import (
    add_room_shell,
    add_sheets_on_walls,
    standing_on_floor,
    wall_materials,
)
from nas3r.data.synthetic.families.scenes import Scenes, xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, CYLINDER, ELLIPSOID


def _add_table(layout: Layout, area: Tensor, role: str) -> Float[Tensor, "n 3"]:
    """A table with four legs and things on it; returns a point above its top."""
    draws = layout.draws
    height = draws.uniform(1, low=0.45, high=0.95)
    wide, deep = draws.uniform(1, low=0.35, high=0.9), draws.uniform(1, low=0.3, high=0.6)
    thick = draws.uniform(1, low=0.015, high=0.05)
    at = draws.uniform(2, low=-0.7, high=0.7) * area
    x, z = at[:, :1], at[:, 1:]
    present = draws.chance(0.6, 1)
    wood = layout.materials(role, 1)
    layout.add(BOX, xyz(x, -height, z), xyz(wide, thick, deep), wood, present=present)
    sx, sz = torch.tensor([-0.9, 0.9, -0.9, 0.9]), torch.tensor([-0.9, -0.9, 0.9, 0.9])
    leg = draws.log_uniform(1, low=0.015, high=0.05)
    layout.add(
        BOX,
        xyz(x + sx * wide, -height / 2, z + sz * deep),
        xyz(leg, height / 2, leg).expand(-1, 4, 3),
        wood.expand(-1, 4),
        present=present.expand(-1, 4),
    )
    half = layout.loose_half(3, 0.05, 0.2)
    spot = draws.uniform(3, 2, low=-0.8, high=0.8)
    top = height + thick + half[..., 1]
    layout.add(
        layout.any_kind(3),
        xyz(x + spot[..., 0] * wide, -top, z + spot[..., 1] * deep),
        half,
        layout.materials("small", 3),
        rotation=layout.some_yaw(3),
        present=present.expand(-1, 3),
    )
    return xyz(x, -height - 0.1, z)[:, 0]


def room(draws: Draws) -> Scenes:
    """Furnished rooms: cabinets, a table, shelves, rugs, lamps, pictures, loose things."""
    roles = ["wall"] * 3 + ["floor", "ceiling"] + ["object"] * 6 + ["small"] * 4 + ["sheet"] * 3 + ["shelf"]
    layout = Layout(draws, roles)
    half = torch.cat(
        [
            draws.log_uniform(1, low=1.4, high=3.5),
            draws.uniform(1, low=1.1, high=1.8),
            draws.log_uniform(1, low=1.4, high=3.5),
        ],
        -1,
    )
    area = half[:, [0, 2]]
    add_room_shell(layout, half, wall_materials(layout, 0.5))
    size = torch.cat(
        [
            draws.uniform(6, 1, low=0.2, high=0.7),
            draws.log_uniform(6, 1, low=0.15, high=1.0),
            draws.uniform(6, 1, low=0.2, high=0.5),
        ],
        -1,
    )
    place = standing_on_floor(layout, 6, area, size, 0.7)
    layout.add(
        BOX, place, size, layout.materials("object", 6), rotation=layout.some_yaw(6, 0.2), present=0.65
    )
    shelf = torch.tensor([0.5, 0.9, 0.15]) * draws.uniform(2, 3, low=0.6, high=1.3)
    layout.add(
        BOX, standing_on_floor(layout, 2, area, shelf, 1.0), shelf, layout.materials("shelf", 2), present=0.4
    )
    focus = _add_table(layout, area, "object")
    loose = layout.loose_half(4, 0.1, 0.4)
    layout.add(
        layout.any_kind(4, box=1.0),
        standing_on_floor(layout, 4, area, loose, 0.3),
        loose,
        layout.materials("small", 4),
        rotation=layout.some_yaw(4),
        present=0.7,
    )
    pole = draws.log_uniform(2, low=0.02, high=0.12)
    spot = draws.uniform(2, 2, low=-0.9, high=0.9) * area[:, None]
    layout.add(
        CYLINDER,
        xyz(spot[..., 0], -half[:, None, 1], spot[..., 1]),
        xyz(pole, half[:, None, 1].expand(-1, 2), pole),
        layout.materials("object", 2),
        present=0.4,
    )
    rug = xyz(draws.uniform(1, low=0.5, high=1.2), torch.tensor(0.01), draws.uniform(1, low=0.4, high=1.0))
    layout.add(
        BOX, standing_on_floor(layout, 1, area, rug, 0.0), rug, layout.materials("sheet", 1), present=0.5
    )
    add_sheets_on_walls(layout, 5, half, "sheet", 0.15, 0.8)
    hang = draws.uniform(1, 2, low=-0.5, high=0.5) * area[:, None]
    lamp = xyz(hang[..., 0], -2 * half[:, None, 1] + 0.4, hang[..., 1])
    layout.add(ELLIPSOID, lamp, layout.loose_half(1, 0.1, 0.25), layout.materials("small", 1), present=0.5)
    zero = torch.zeros_like(half[:, 0])
    stage = torch.stack([xyz(zero, -half[:, 1], zero), half * torch.tensor([0.85, 0.75, 0.85])], 1)
    return Scenes(layout, stage, focus, 0.2, lamp[:, 0] + torch.tensor([0.0, 0.5, 0.0]))
