"""Open ground under the sky."""

import torch

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families.outdoors import add_trees
from nas3r.data.synthetic.families.scenes import Scenes, xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, CYLINDER, ELLIPSOID, PRISM, ROUGH


def nature(draws: Draws) -> Scenes:
    """Open ground with mounds, rocks, trees, posts and a hut under the sky."""
    roles = ["grass"] * 3 + ["rock"] * 3 + ["foliage"] * 3 + ["trunk"] * 2 + ["object"] * 2 + ["facade"]
    layout = Layout(draws, roles)
    n = len(draws)
    hill = xyz(torch.tensor(60.0), draws.uniform(1, low=3.0, high=12.0), torch.tensor(60.0))
    zero = torch.zeros(n, 1)
    layout.add(ELLIPSOID, xyz(zero, hill[..., 1], zero), hill, layout.materials("grass", 1))
    mound = xyz(
        draws.uniform(5, low=2.0, high=6.0),
        draws.uniform(5, low=0.4, high=2.0),
        draws.uniform(5, low=2.0, high=6.0),
    )
    away = draws.direction(5)
    far = draws.uniform(5, low=6.0, high=16.0)
    layout.add(
        ROUGH,
        xyz(away[..., 0] * far, 0.2 * mound[..., 1], away[..., 2] * far),
        mound,
        layout.materials("grass", 5),
        rotation=layout.some_yaw(5),
        present=0.8,
    )
    rock = layout.loose_half(9, 0.2, 0.9)
    spot = draws.uniform(9, 2, low=-7.0, high=7.0)
    layout.add(
        draws.choice((ROUGH, BOX), (4, 1), 9),
        xyz(spot[..., 0], -0.5 * rock[..., 1], spot[..., 1]),
        rock,
        layout.materials("rock", 9),
        rotation=layout.any_rotation(9),
        present=0.8,
    )
    spot = draws.uniform(6, 2, low=-9.0, high=9.0)
    add_trees(layout, 6, spot[..., 0], spot[..., 1])
    post = draws.log_uniform(5, low=0.03, high=0.1)
    tall = draws.uniform(5, low=0.3, high=0.8)
    spot = draws.uniform(5, 2, low=-5.0, high=5.0)
    layout.add(
        draws.choice((BOX, CYLINDER), (1, 1), 5),
        xyz(spot[..., 0], -tall, spot[..., 1]),
        xyz(post, tall, post),
        layout.materials("trunk", 5),
        rotation=layout.some_yaw(5),
        present=0.6,
    )
    hut = draws.uniform(1, 3, low=0.8, high=2.0)
    at = draws.uniform(1, 2, low=-8.0, high=8.0)
    present = draws.chance(0.4, 1)
    layout.add(
        BOX, xyz(at[..., 0], -hut[..., 1], at[..., 1]), hut, layout.materials("facade", 1), present=present
    )
    roof = hut * torch.tensor([1.2, 0.5, 1.2])
    layout.add(
        PRISM,
        xyz(at[..., 0], -2 * hut[..., 1] - roof[..., 1], at[..., 1]),
        roof,
        layout.materials("object", 1),
        present=present,
    )
    flat = torch.zeros(n)
    up = draws.uniform(1, low=0.5, high=2.2)[:, 0]
    stage = torch.stack([xyz(flat, -up, flat), xyz(flat + 4.0, 0.5 * up, flat + 4.0)], 1)
    toward = draws.uniform(2, low=-4.0, high=4.0)
    return Scenes(layout, stage, xyz(toward[:, 0], -0.3 * up, toward[:, 1]), 0.2, None)
