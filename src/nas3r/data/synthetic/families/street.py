"""Streets under the sky."""

import torch

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families.outdoors import add_trees
from nas3r.data.synthetic.families.scenes import Scenes, xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, CYLINDER, PRISM, ROUGH


def street(draws: Draws) -> Scenes:
    """Rows of houses, poles, trees, cars and signs under the sky."""
    roles = (
        ["ground"] * 2
        + ["facade"] * 5
        + ["object"] * 4
        + ["sheet"] * 2
        + ["foliage"] * 2
        + ["trunk", "small"]
    )
    layout = Layout(draws, roles)
    n = len(draws)
    width = draws.uniform(1, low=3.0, high=8.0)
    flat = torch.tensor([60.0, 0.5, 60.0]).expand(n, 1, 3)
    layout.add(BOX, torch.tensor([0.0, 0.5, 0.0]).expand(n, 1, 3), flat, layout.materials("ground", 1))
    paving = xyz(width * 0.5, torch.tensor(0.03), torch.tensor(50.0))
    layout.add(BOX, torch.zeros(n, 1, 3), paving, layout.materials("ground", 1), present=0.7)
    k = 10
    side = torch.tensor([-1.0, 1.0]).repeat(k // 2)
    rank = torch.arange(k) // 2 - 2
    house = xyz(
        draws.uniform(k, low=2.0, high=5.0),
        draws.log_uniform(k, low=1.5, high=7.0),
        draws.uniform(k, low=2.0, high=4.2),
    )
    x = side * (width + house[..., 0] + draws.uniform(k, high=1.5))
    z = rank * 8.0 + draws.uniform(k, low=-1.5, high=1.5)
    standing = draws.chance(0.85, k)
    layout.add(
        BOX,
        xyz(x, -house[..., 1], z),
        house,
        layout.materials("facade", k),
        rotation=layout.some_yaw(k, 0.0),
        present=standing,
    )
    across = xyz(
        draws.uniform(2, low=4.0, high=9.0),
        draws.log_uniform(2, low=2.0, high=7.0),
        draws.uniform(2, low=1.0, high=3.0),
    )
    end = torch.tensor([-1.0, 1.0]) * draws.uniform(2, low=14.0, high=26.0)
    layout.add(BOX, xyz(end * 0, -across[..., 1], end), across, layout.materials("facade", 2), present=0.6)
    roof = xyz(house[:, :4, 0] * 1.1, draws.uniform(4, low=0.6, high=1.5), house[:, :4, 2] * 1.05)
    peak = -2 * house[:, :4, 1] - roof[..., 1]
    layout.add(
        PRISM, xyz(x[:, :4], peak, z[:, :4]), roof, layout.materials("object", 4), present=standing[:, :4]
    )
    post = draws.log_uniform(4, low=0.04, high=0.12)
    tall = draws.uniform(4, low=1.0, high=3.0)
    edge = draws.sign(4) * width * draws.uniform(4, low=0.55, high=0.95)
    layout.add(
        CYLINDER,
        xyz(edge, -tall, draws.uniform(4, low=-12.0, high=12.0)),
        xyz(post, tall, post),
        layout.materials("small", 4),
        present=0.7,
    )
    add_trees(
        layout,
        3,
        draws.sign(3) * width * draws.uniform(3, low=0.6, high=0.95),
        draws.uniform(3, low=-12.0, high=12.0),
    )
    body = torch.tensor([0.85, 0.4, 1.9]) * draws.uniform(3, 3, low=0.8, high=1.2)
    lane = draws.sign(3) * width * draws.uniform(3, low=0.3, high=0.7)
    along = draws.uniform(3, low=-10.0, high=10.0)
    parked = draws.chance(0.7, 3)
    paint = layout.materials("object", 3)
    layout.add(
        BOX,
        xyz(lane, -0.25 - body[..., 1], along),
        body,
        paint,
        rotation=layout.some_yaw(3, 0.1),
        present=parked,
    )
    cabin = body * torch.tensor([0.9, 0.8, 0.55])
    layout.add(
        ROUGH,
        xyz(lane, -0.25 - 2 * body[..., 1] - 0.5 * cabin[..., 1], along),
        cabin,
        layout.materials("small", 3),
        present=parked,
    )
    board = xyz(draws.uniform(2, low=0.3, high=1.2), draws.uniform(2, low=0.2, high=0.7), torch.tensor(0.04))
    layout.add(
        BOX,
        xyz(
            draws.sign(2) * width * 0.8,
            -draws.uniform(2, low=1.5, high=3.0),
            draws.uniform(2, low=-8.0, high=8.0),
        ),
        board,
        layout.materials("sheet", 2),
        rotation=layout.some_yaw(2, 0.4),
        present=0.6,
    )
    zero = torch.zeros(n)
    up = draws.uniform(1, low=0.6, high=3.0)[:, 0]
    stage = torch.stack([xyz(zero, -up, zero), xyz(0.7 * width[:, 0], 0.4 * up, zero + 8.0)], 1)
    focus = xyz(draws.uniform(1, low=-3.0, high=3.0)[:, 0], -up, draws.uniform(1, low=-10.0, high=10.0)[:, 0])
    return Scenes(layout, stage, focus, 0.35, None)
