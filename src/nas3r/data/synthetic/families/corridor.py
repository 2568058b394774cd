"""Long narrow halls."""

import torch

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families.indoors import add_room_shell, standing_on_floor, wall_materials
from nas3r.data.synthetic.families.scenes import Scenes, xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, CYLINDER, ROUGH


def corridor(draws: Draws) -> Scenes:
    """Long narrow halls with doors, pillars, beams, things along the walls."""
    roles = ["wall"] * 4 + ["floor", "ceiling"] + ["object"] * 6 + ["sheet"] * 5 + ["small"] * 2
    layout = Layout(draws, roles)
    half = torch.cat(
        [
            draws.uniform(1, low=0.8, high=2.2),
            draws.uniform(1, low=1.1, high=2.0),
            draws.uniform(1, low=5.0, high=12.0),
        ],
        -1,
    )
    add_room_shell(layout, half, wall_materials(layout, 0.3))
    k = 9
    size = draws.log_uniform(k, 3, low=0.12, high=0.6)
    size[..., 1] *= 2
    sign = draws.sign(k)
    x = sign * (half[:, :1] - size[..., 0] * draws.uniform(k, low=0.3, high=1.0))
    z = draws.uniform(k, low=-1.0) * half[:, 2:]
    layout.add(
        draws.choice((BOX, CYLINDER, ROUGH), (4, 1, 1), k),
        xyz(x, -size[..., 1], z),
        size,
        layout.materials("object", k),
        rotation=layout.some_yaw(k, 0.1),
        present=0.75,
    )
    doors = 8
    sign, z = draws.sign(doors), draws.uniform(doors, low=-1.0) * half[:, 2:]
    tall = draws.uniform(doors, low=0.2, high=1.05)
    up = torch.maximum(tall, draws.uniform(doors, low=0.5, high=1.6))
    panel = xyz(draws.log_uniform(doors, low=0.01, high=0.08), tall, draws.uniform(doors, low=0.2, high=0.6))
    layout.add(BOX, xyz(sign * half[:, :1], -up, z), panel, layout.materials("sheet", doors), present=0.8)
    beam = xyz(half[:, :1], draws.uniform(3, low=0.05, high=0.2), draws.uniform(3, low=0.05, high=0.3))
    z = draws.uniform(3, low=-1.0) * half[:, 2:]
    layout.add(BOX, xyz(z * 0, -2 * half[:, 1:2], z), beam, layout.materials("object", 3), present=0.5)
    pillar = draws.uniform(4, low=0.05, high=0.2)
    side = draws.sign(4) * (half[:, :1] - draws.uniform(4, low=0.2, high=0.5))
    layout.add(
        CYLINDER,
        xyz(side, -half[:, 1:2], draws.uniform(4, low=-1.0) * half[:, 2:]),
        xyz(pillar, half[:, 1:2].expand(-1, 4), pillar),
        layout.materials("object", 4),
        present=0.4,
    )
    small = layout.loose_half(3, 0.1, 0.3)
    layout.add(
        layout.any_kind(3, box=1.0),
        standing_on_floor(layout, 3, half[:, [0, 2]], small, 0.5),
        small,
        layout.materials("small", 3),
        rotation=layout.some_yaw(3),
        present=0.7,
    )
    zero = torch.zeros_like(half[:, 0])
    stage = torch.stack([xyz(zero, -half[:, 1], zero), half * torch.tensor([0.7, 0.6, 0.7])], 1)
    along = draws.uniform(1, low=-0.9, high=0.9)[:, 0] * half[:, 2]
    lamp = xyz(zero, -1.7 * half[:, 1], zero)
    return Scenes(layout, stage, xyz(zero, -half[:, 1], along), 0.2, lamp)
