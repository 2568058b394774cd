"""Things on a table, close up."""

import torch
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
from nas3r.data.synthetic.shapes import BOX, CYLINDER


def tabletop(draws: Draws) -> Scenes:
    """Things on a table, close up, with a room behind."""
    roles = ["wall"] * 3 + ["floor", "ceiling"] + ["tiny"] * 8 + ["page"] * 3 + ["object"] * 3
    layout = Layout(draws, roles)
    half = draws.uniform(3, low=1.3, high=2.2) * torch.tensor([1.0, 0.7, 1.0])
    add_room_shell(layout, half, wall_materials(layout, 0.5))
    height = draws.uniform(1, low=0.5, high=0.9)
    top = xyz(draws.uniform(1, low=0.5, high=1.0), torch.tensor(0.03), draws.uniform(1, low=0.35, high=0.7))
    zero = torch.zeros_like(height)
    layout.add(BOX, xyz(zero, 0.03 - height, zero), top, layout.materials("object", 1))

    def on_table(k: int, size: Tensor, raised: Tensor | float) -> Tensor:
        spot = draws.uniform(k, 2, low=-1.0) * 0.45
        return xyz(spot[..., 0], -height - size[..., 1] - raised, spot[..., 1] * 0.8)

    books = xyz(
        draws.uniform(4, low=0.06, high=0.16), draws.log_uniform(4, low=0.005, high=0.04),
        draws.uniform(4, low=0.06, high=0.16),
    )  # fmt: skip
    layout.add(
        BOX,
        on_table(4, books, 0.0),
        books,
        layout.materials("page", 4),
        rotation=layout.some_yaw(4, 0.6),
        present=0.7,
    )
    size = layout.loose_half(10, 0.02, 0.1)
    layout.add(
        layout.any_kind(10, box=2.0),
        on_table(10, size, 0.0),
        size,
        layout.materials("tiny", 10),
        rotation=layout.some_yaw(10, 0.5),
        present=0.85,
    )
    stick = draws.log_uniform(3, low=0.004, high=0.02)
    tall = draws.uniform(3, low=0.08, high=0.25)
    upright = xyz(stick, tall, stick)
    layout.add(CYLINDER, on_table(3, upright, 0.0), upright, layout.materials("tiny", 3), present=0.6)
    screen = xyz(
        draws.uniform(2, low=0.12, high=0.35), draws.uniform(2, low=0.1, high=0.25), torch.tensor(0.012)
    )
    place = on_table(2, screen, 0.05)
    layout.add(BOX, place, screen, layout.materials("page", 2), rotation=layout.some_yaw(2, 0.7), present=0.5)
    hung = layout.loose_half(2, 0.03, 0.12)
    layout.add(
        layout.any_kind(2),
        on_table(2, hung, draws.uniform(2, low=0.15, high=0.45)),
        hung,
        layout.materials("tiny", 2),
        rotation=layout.any_rotation(2),
        present=0.5,
    )
    add_sheets_on_walls(layout, 4, half, "page", 0.15, 0.6)
    cupboard = draws.uniform(3, 3, low=0.15, high=0.5)
    layout.add(
        BOX,
        standing_on_floor(layout, 3, half[:, [0, 2]], cupboard, 1.0),
        cupboard,
        layout.materials("object", 3),
        present=0.6,
    )
    middle = xyz(zero, -height - 0.3, zero)[:, 0]
    stage = torch.stack([middle, torch.tensor([0.75, 0.3, 0.65]).expand(len(draws), 3)], 1)
    focus = xyz(zero, -height - 0.05, zero)[:, 0]
    lamp = xyz(draws.uniform(1, low=-0.8, high=0.8), -height - 1.0, draws.uniform(1, low=-0.8, high=0.8))[
        :, 0
    ]
    return Scenes(layout, stage, focus, 0.05, lamp)
