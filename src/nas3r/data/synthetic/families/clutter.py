"""Solids floating anywhere."""

import torch

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families.indoors import wall_materials
from nas3r.data.synthetic.families.scenes import Scenes, xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, CYLINDER, ROOM


def clutter(draws: Draws) -> Scenes:
    """Solids of every kind and size floating at any angle, in a box, or over a plane, or in the sky."""
    roles = ["object"] * 8 + ["small"] * 6 + ["wall"] * 4 + ["floor", "ceiling"]
    layout = Layout(draws, roles)
    n = len(draws)
    shell = draws.uniform(3, low=3.0, high=8.0)
    enclosed = draws.chance(0.8, 1)
    layout.add(
        ROOM, torch.zeros(n, 1, 3), shell[:, None], wall_materials(layout, 0.0)[:, None], present=enclosed
    )
    floor_y = draws.uniform(1, low=1.0, high=3.0)
    slab = torch.tensor([30.0, 0.3, 30.0]).expand(n, 1, 3)
    layout.add(
        BOX, xyz(floor_y * 0, floor_y, floor_y * 0), slab, layout.materials("floor", 1), present=~enclosed
    )
    big = layout.loose_half(8, 0.4, 1.3)
    distance = draws.uniform(8, 1, low=1.5, high=5.0)
    layout.add(
        layout.any_kind(8),
        draws.direction(8) * distance,
        big,
        layout.materials("object", 8),
        rotation=layout.any_rotation(8),
        present=0.9,
    )
    little = layout.loose_half(16, 0.08, 0.4)
    distance = draws.uniform(16, 1, low=0.5, high=4.0)
    layout.add(
        layout.any_kind(16),
        draws.direction(16) * distance,
        little,
        layout.materials("small", 16),
        rotation=layout.any_rotation(16),
        present=0.8,
    )
    bar = xyz(
        draws.log_uniform(3, low=0.02, high=0.1),
        draws.uniform(3, low=1.0, high=3.0),
        draws.log_uniform(3, low=0.02, high=0.1),
    )
    layout.add(
        draws.choice((BOX, CYLINDER), (1, 1), 3),
        draws.direction(3) * 2.0,
        bar,
        layout.materials("object", 3),
        rotation=layout.any_rotation(3),
        present=0.6,
    )
    zero = torch.zeros(n, 3)
    stage = torch.stack([zero, zero + 1.8], 1)
    return Scenes(layout, stage, draws.direction() * 1.0, 0.2, draws.direction() * 1.0)
