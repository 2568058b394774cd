"""The scene families: where solids stand in rooms, corridors, on tables, in streets, in the open, in the air.

Each function draws n scenes and returns their layout and stage. y points down and floors lie at y = 0, so
that something of half height h standing on the floor has its centre at y = -h. Solids may run into each
other: the scene is their union.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import BOX, CYLINDER, ELLIPSOID, PRISM, ROOM, ROUGH


@dataclass(frozen=True)
class Scenes:
    """n scenes of one family.

    Attributes:
        layout: Their solids.
        stage: Centre and half extents of where cameras are placed [n, 2, 3].
        focus: Something worth looking at [n, 3].
        clearance: Least distance between camera and surfaces, metres.
        lamp: Position of the lamp [n, 3]; None outdoors.
    """

    layout: Layout
    stage: Float[Tensor, "n 2 3"]
    focus: Float[Tensor, "n 3"]
    clearance: float
    lamp: Float[Tensor, "n 3"] | None


def _xyz(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(x, y, z), -1)


def _standing(layout: Layout, k: int, area: Tensor, half: Tensor, edge: float) -> Float[Tensor, "n k 3"]:
    """Places on a floor of half extents `area` [n, 2]; a share `edge` of them pushed against a wall."""
    draws = layout.draws
    xz = draws.uniform(k, 2, low=-1.0)
    side = draws.chance(0.5, k)
    pushed = draws.chance(edge, k)
    sign = draws.sign(k)
    x = torch.where(pushed & side, sign, xz[..., 0]) * (area[:, None, 0] - half[..., 0]).clamp_min(0)
    z = torch.where(pushed & ~side, sign, xz[..., 1]) * (area[:, None, 1] - half[..., 2]).clamp_min(0)
    return _xyz(x, -half[..., 1], z)


def _sheets_on_walls(layout: Layout, k: int, room: Tensor, role: str, low: float, high: float) -> None:
    """Thin panels (posters, doors, windows, boards) on the walls of a room of half extents `room` [n, 3]."""
    draws = layout.draws
    wide, tall = draws.log_uniform(k, low=low, high=high), draws.log_uniform(k, low=low, high=high)
    thin = draws.log_uniform(k, low=0.01, high=0.06)
    on_x = draws.chance(0.5, k)
    half = torch.where(on_x[..., None], _xyz(thin, tall, wide), _xyz(wide, tall, thin))
    along = draws.uniform(k, low=-0.85, high=0.85)
    sign = draws.sign(k)
    x = torch.where(on_x, sign, along) * room[:, None, 0]
    z = torch.where(on_x, along, sign) * room[:, None, 2]
    y = -2 * room[:, None, 1] * draws.uniform(k, low=0.2, high=0.8)
    layout.add(BOX, _xyz(x, y, z), half, layout.materials(role, k), present=0.7)


def _table(layout: Layout, area: Tensor, role: str) -> Float[Tensor, "n 3"]:
    """A table with four legs and things on it; returns a point above its top."""
    draws = layout.draws
    height = draws.uniform(1, low=0.45, high=0.95)
    wide, deep = draws.uniform(1, low=0.35, high=0.9), draws.uniform(1, low=0.3, high=0.6)
    thick = draws.uniform(1, low=0.015, high=0.05)
    at = draws.uniform(2, low=-0.7, high=0.7) * area
    x, z = at[:, :1], at[:, 1:]
    present = draws.chance(0.6, 1)
    wood = layout.materials(role, 1)
    layout.add(BOX, _xyz(x, -height, z), _xyz(wide, thick, deep), wood, present=present)
    sx, sz = torch.tensor([-0.9, 0.9, -0.9, 0.9]), torch.tensor([-0.9, -0.9, 0.9, 0.9])
    leg = draws.log_uniform(1, low=0.015, high=0.05)
    layout.add(
        BOX,
        _xyz(x + sx * wide, -height / 2, z + sz * deep),
        _xyz(leg, height / 2, leg).expand(-1, 4, 3),
        wood.expand(-1, 4),
        present=present.expand(-1, 4),
    )
    half = layout.loose_half(3, 0.05, 0.2)
    spot = draws.uniform(3, 2, low=-0.8, high=0.8)
    top = height + thick + half[..., 1]
    layout.add(
        layout.any_kind(3),
        _xyz(x + spot[..., 0] * wide, -top, z + spot[..., 1] * deep),
        half,
        layout.materials("small", 3),
        rotation=layout.some_yaw(3),
        present=present.expand(-1, 3),
    )
    return _xyz(x, -height - 0.1, z)[:, 0]


def _room_shell(layout: Layout, half: Tensor, walls: Tensor) -> None:
    """The room itself: its sides show the material of the wall behind them (-x, +x, up, floor, -z, +z)."""
    zero = torch.zeros_like(half[:, 0])
    center = _xyz(zero, -half[:, 1], zero)[:, None]
    layout.add(ROOM, center, half[:, None], walls[:, None])


def _walls(layout: Layout, same: float) -> Tensor:
    """Materials of a room's six sides; a share `same` of rooms has one material on all walls."""
    draws = layout.draws
    walls = layout.materials("wall", 4)
    walls = torch.where(draws.chance(same, 1), walls[:, :1], walls)
    ceiling, floor = layout.materials("ceiling", 1), layout.materials("floor", 1)
    # Sides are named by the inward normal: what faces +x (inwards) is the wall at -x.
    return torch.cat([walls[:, :2], floor, ceiling, walls[:, 2:]], -1)


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
    _room_shell(layout, half, _walls(layout, 0.5))
    size = torch.cat(
        [
            draws.uniform(6, 1, low=0.2, high=0.7),
            draws.log_uniform(6, 1, low=0.15, high=1.0),
            draws.uniform(6, 1, low=0.2, high=0.5),
        ],
        -1,
    )
    place = _standing(layout, 6, area, size, 0.7)
    layout.add(
        BOX, place, size, layout.materials("object", 6), rotation=layout.some_yaw(6, 0.2), present=0.65
    )
    shelf = torch.tensor([0.5, 0.9, 0.15]) * draws.uniform(2, 3, low=0.6, high=1.3)
    layout.add(BOX, _standing(layout, 2, area, shelf, 1.0), shelf, layout.materials("shelf", 2), present=0.4)
    focus = _table(layout, area, "object")
    loose = layout.loose_half(4, 0.1, 0.4)
    layout.add(
        layout.any_kind(4, box=1.0),
        _standing(layout, 4, area, loose, 0.3),
        loose,
        layout.materials("small", 4),
        rotation=layout.some_yaw(4),
        present=0.7,
    )
    pole = draws.log_uniform(2, low=0.02, high=0.12)
    spot = draws.uniform(2, 2, low=-0.9, high=0.9) * area[:, None]
    layout.add(
        CYLINDER,
        _xyz(spot[..., 0], -half[:, None, 1], spot[..., 1]),
        _xyz(pole, half[:, None, 1].expand(-1, 2), pole),
        layout.materials("object", 2),
        present=0.4,
    )
    rug = _xyz(draws.uniform(1, low=0.5, high=1.2), torch.tensor(0.01), draws.uniform(1, low=0.4, high=1.0))
    layout.add(BOX, _standing(layout, 1, area, rug, 0.0), rug, layout.materials("sheet", 1), present=0.5)
    _sheets_on_walls(layout, 5, half, "sheet", 0.15, 0.8)
    hang = draws.uniform(1, 2, low=-0.5, high=0.5) * area[:, None]
    lamp = _xyz(hang[..., 0], -2 * half[:, None, 1] + 0.4, hang[..., 1])
    layout.add(ELLIPSOID, lamp, layout.loose_half(1, 0.1, 0.25), layout.materials("small", 1), present=0.5)
    zero = torch.zeros_like(half[:, 0])
    stage = torch.stack([_xyz(zero, -half[:, 1], zero), half * torch.tensor([0.85, 0.75, 0.85])], 1)
    return Scenes(layout, stage, focus, 0.2, lamp[:, 0] + torch.tensor([0.0, 0.5, 0.0]))


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
    _room_shell(layout, half, _walls(layout, 0.3))
    k = 9
    size = draws.log_uniform(k, 3, low=0.12, high=0.6)
    size[..., 1] *= 2
    sign = draws.sign(k)
    x = sign * (half[:, :1] - size[..., 0] * draws.uniform(k, low=0.3, high=1.0))
    z = draws.uniform(k, low=-1.0) * half[:, 2:]
    layout.add(
        draws.choice((BOX, CYLINDER, ROUGH), (4, 1, 1), k),
        _xyz(x, -size[..., 1], z),
        size,
        layout.materials("object", k),
        rotation=layout.some_yaw(k, 0.1),
        present=0.75,
    )
    doors = 8
    sign, z = draws.sign(doors), draws.uniform(doors, low=-1.0) * half[:, 2:]
    tall = draws.uniform(doors, low=0.2, high=1.05)
    up = torch.maximum(tall, draws.uniform(doors, low=0.5, high=1.6))
    panel = _xyz(draws.log_uniform(doors, low=0.01, high=0.08), tall, draws.uniform(doors, low=0.2, high=0.6))
    layout.add(BOX, _xyz(sign * half[:, :1], -up, z), panel, layout.materials("sheet", doors), present=0.8)
    beam = _xyz(half[:, :1], draws.uniform(3, low=0.05, high=0.2), draws.uniform(3, low=0.05, high=0.3))
    z = draws.uniform(3, low=-1.0) * half[:, 2:]
    layout.add(BOX, _xyz(z * 0, -2 * half[:, 1:2], z), beam, layout.materials("object", 3), present=0.5)
    pillar = draws.uniform(4, low=0.05, high=0.2)
    side = draws.sign(4) * (half[:, :1] - draws.uniform(4, low=0.2, high=0.5))
    layout.add(
        CYLINDER,
        _xyz(side, -half[:, 1:2], draws.uniform(4, low=-1.0) * half[:, 2:]),
        _xyz(pillar, half[:, 1:2].expand(-1, 4), pillar),
        layout.materials("object", 4),
        present=0.4,
    )
    small = layout.loose_half(3, 0.1, 0.3)
    layout.add(
        layout.any_kind(3, box=1.0),
        _standing(layout, 3, half[:, [0, 2]], small, 0.5),
        small,
        layout.materials("small", 3),
        rotation=layout.some_yaw(3),
        present=0.7,
    )
    zero = torch.zeros_like(half[:, 0])
    stage = torch.stack([_xyz(zero, -half[:, 1], zero), half * torch.tensor([0.7, 0.6, 0.7])], 1)
    along = draws.uniform(1, low=-0.9, high=0.9)[:, 0] * half[:, 2]
    lamp = _xyz(zero, -1.7 * half[:, 1], zero)
    return Scenes(layout, stage, _xyz(zero, -half[:, 1], along), 0.2, lamp)


def tabletop(draws: Draws) -> Scenes:
    """Things on a table, close up, with a room behind."""
    roles = ["wall"] * 3 + ["floor", "ceiling"] + ["tiny"] * 8 + ["page"] * 3 + ["object"] * 3
    layout = Layout(draws, roles)
    half = draws.uniform(3, low=1.3, high=2.2) * torch.tensor([1.0, 0.7, 1.0])
    _room_shell(layout, half, _walls(layout, 0.5))
    height = draws.uniform(1, low=0.5, high=0.9)
    top = _xyz(draws.uniform(1, low=0.5, high=1.0), torch.tensor(0.03), draws.uniform(1, low=0.35, high=0.7))
    zero = torch.zeros_like(height)
    layout.add(BOX, _xyz(zero, 0.03 - height, zero), top, layout.materials("object", 1))

    def on_table(k: int, size: Tensor, raised: Tensor | float) -> Tensor:
        spot = draws.uniform(k, 2, low=-1.0) * 0.45
        return _xyz(spot[..., 0], -height - size[..., 1] - raised, spot[..., 1] * 0.8)

    books = _xyz(
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
    upright = _xyz(stick, tall, stick)
    layout.add(CYLINDER, on_table(3, upright, 0.0), upright, layout.materials("tiny", 3), present=0.6)
    screen = _xyz(
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
    _sheets_on_walls(layout, 4, half, "page", 0.15, 0.6)
    cupboard = draws.uniform(3, 3, low=0.15, high=0.5)
    layout.add(
        BOX,
        _standing(layout, 3, half[:, [0, 2]], cupboard, 1.0),
        cupboard,
        layout.materials("object", 3),
        present=0.6,
    )
    middle = _xyz(zero, -height - 0.3, zero)[:, 0]
    stage = torch.stack([middle, torch.tensor([0.75, 0.3, 0.65]).expand(len(draws), 3)], 1)
    focus = _xyz(zero, -height - 0.05, zero)[:, 0]
    lamp = _xyz(draws.uniform(1, low=-0.8, high=0.8), -height - 1.0, draws.uniform(1, low=-0.8, high=0.8))[
        :, 0
    ]
    return Scenes(layout, stage, focus, 0.05, lamp)


def _trees(layout: Layout, k: int, x: Tensor, z: Tensor) -> None:
    """Trunks with one or two crowns at floor positions [n, k]."""
    draws = layout.draws
    tall, thick = draws.uniform(k, low=1.2, high=3.0), draws.log_uniform(k, low=0.06, high=0.2)
    present = draws.chance(0.7, k)
    trunk = _xyz(thick, tall / 2, thick)
    layout.add(CYLINDER, _xyz(x, -tall / 2, z), trunk, layout.materials("trunk", k), present=present)
    crown = draws.uniform(k, 1, low=0.6, high=1.6) * draws.uniform(k, 3, low=0.7, high=1.2)
    place = _xyz(x, -tall - 0.6 * crown[..., 1], z)
    layout.add(
        ROUGH, place, crown, layout.materials("foliage", k), rotation=layout.some_yaw(k), present=present
    )


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
    paving = _xyz(width * 0.5, torch.tensor(0.03), torch.tensor(50.0))
    layout.add(BOX, torch.zeros(n, 1, 3), paving, layout.materials("ground", 1), present=0.7)
    k = 10
    side = torch.tensor([-1.0, 1.0]).repeat(k // 2)
    rank = torch.arange(k) // 2 - 2
    house = _xyz(
        draws.uniform(k, low=2.0, high=5.0),
        draws.log_uniform(k, low=1.5, high=7.0),
        draws.uniform(k, low=2.0, high=4.2),
    )
    x = side * (width + house[..., 0] + draws.uniform(k, high=1.5))
    z = rank * 8.0 + draws.uniform(k, low=-1.5, high=1.5)
    standing = draws.chance(0.85, k)
    layout.add(
        BOX,
        _xyz(x, -house[..., 1], z),
        house,
        layout.materials("facade", k),
        rotation=layout.some_yaw(k, 0.0),
        present=standing,
    )
    across = _xyz(
        draws.uniform(2, low=4.0, high=9.0),
        draws.log_uniform(2, low=2.0, high=7.0),
        draws.uniform(2, low=1.0, high=3.0),
    )
    end = torch.tensor([-1.0, 1.0]) * draws.uniform(2, low=14.0, high=26.0)
    layout.add(BOX, _xyz(end * 0, -across[..., 1], end), across, layout.materials("facade", 2), present=0.6)
    roof = _xyz(house[:, :4, 0] * 1.1, draws.uniform(4, low=0.6, high=1.5), house[:, :4, 2] * 1.05)
    peak = -2 * house[:, :4, 1] - roof[..., 1]
    layout.add(
        PRISM, _xyz(x[:, :4], peak, z[:, :4]), roof, layout.materials("object", 4), present=standing[:, :4]
    )
    post = draws.log_uniform(4, low=0.04, high=0.12)
    tall = draws.uniform(4, low=1.0, high=3.0)
    edge = draws.sign(4) * width * draws.uniform(4, low=0.55, high=0.95)
    layout.add(
        CYLINDER,
        _xyz(edge, -tall, draws.uniform(4, low=-12.0, high=12.0)),
        _xyz(post, tall, post),
        layout.materials("small", 4),
        present=0.7,
    )
    _trees(
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
        _xyz(lane, -0.25 - body[..., 1], along),
        body,
        paint,
        rotation=layout.some_yaw(3, 0.1),
        present=parked,
    )
    cabin = body * torch.tensor([0.9, 0.8, 0.55])
    layout.add(
        ROUGH,
        _xyz(lane, -0.25 - 2 * body[..., 1] - 0.5 * cabin[..., 1], along),
        cabin,
        layout.materials("small", 3),
        present=parked,
    )
    board = _xyz(draws.uniform(2, low=0.3, high=1.2), draws.uniform(2, low=0.2, high=0.7), torch.tensor(0.04))
    layout.add(
        BOX,
        _xyz(
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
    stage = torch.stack([_xyz(zero, -up, zero), _xyz(0.7 * width[:, 0], 0.4 * up, zero + 8.0)], 1)
    focus = _xyz(
        draws.uniform(1, low=-3.0, high=3.0)[:, 0], -up, draws.uniform(1, low=-10.0, high=10.0)[:, 0]
    )
    return Scenes(layout, stage, focus, 0.35, None)


def nature(draws: Draws) -> Scenes:
    """Open ground with mounds, rocks, trees, posts and a hut under the sky."""
    roles = ["grass"] * 3 + ["rock"] * 3 + ["foliage"] * 3 + ["trunk"] * 2 + ["object"] * 2 + ["facade"]
    layout = Layout(draws, roles)
    n = len(draws)
    hill = _xyz(torch.tensor(60.0), draws.uniform(1, low=3.0, high=12.0), torch.tensor(60.0))
    zero = torch.zeros(n, 1)
    layout.add(ELLIPSOID, _xyz(zero, hill[..., 1], zero), hill, layout.materials("grass", 1))
    mound = _xyz(
        draws.uniform(5, low=2.0, high=6.0),
        draws.uniform(5, low=0.4, high=2.0),
        draws.uniform(5, low=2.0, high=6.0),
    )
    away = draws.direction(5)
    far = draws.uniform(5, low=6.0, high=16.0)
    layout.add(
        ROUGH,
        _xyz(away[..., 0] * far, 0.2 * mound[..., 1], away[..., 2] * far),
        mound,
        layout.materials("grass", 5),
        rotation=layout.some_yaw(5),
        present=0.8,
    )
    rock = layout.loose_half(9, 0.2, 0.9)
    spot = draws.uniform(9, 2, low=-7.0, high=7.0)
    layout.add(
        draws.choice((ROUGH, BOX), (4, 1), 9),
        _xyz(spot[..., 0], -0.5 * rock[..., 1], spot[..., 1]),
        rock,
        layout.materials("rock", 9),
        rotation=layout.any_rotation(9),
        present=0.8,
    )
    spot = draws.uniform(6, 2, low=-9.0, high=9.0)
    _trees(layout, 6, spot[..., 0], spot[..., 1])
    post = draws.log_uniform(5, low=0.03, high=0.1)
    tall = draws.uniform(5, low=0.3, high=0.8)
    spot = draws.uniform(5, 2, low=-5.0, high=5.0)
    layout.add(
        draws.choice((BOX, CYLINDER), (1, 1), 5),
        _xyz(spot[..., 0], -tall, spot[..., 1]),
        _xyz(post, tall, post),
        layout.materials("trunk", 5),
        rotation=layout.some_yaw(5),
        present=0.6,
    )
    hut = draws.uniform(1, 3, low=0.8, high=2.0)
    at = draws.uniform(1, 2, low=-8.0, high=8.0)
    there = draws.chance(0.4, 1)
    layout.add(
        BOX, _xyz(at[..., 0], -hut[..., 1], at[..., 1]), hut, layout.materials("facade", 1), present=there
    )
    roof = hut * torch.tensor([1.2, 0.5, 1.2])
    layout.add(
        PRISM,
        _xyz(at[..., 0], -2 * hut[..., 1] - roof[..., 1], at[..., 1]),
        roof,
        layout.materials("object", 1),
        present=there,
    )
    flat = torch.zeros(n)
    up = draws.uniform(1, low=0.5, high=2.2)[:, 0]
    stage = torch.stack([_xyz(flat, -up, flat), _xyz(flat + 4.0, 0.5 * up, flat + 4.0)], 1)
    toward = draws.uniform(2, low=-4.0, high=4.0)
    return Scenes(layout, stage, _xyz(toward[:, 0], -0.3 * up, toward[:, 1]), 0.2, None)


def clutter(draws: Draws) -> Scenes:
    """Solids of every kind and size floating at any angle, in a box, or over a plane, or in the sky."""
    roles = ["object"] * 8 + ["small"] * 6 + ["wall"] * 4 + ["floor", "ceiling"]
    layout = Layout(draws, roles)
    n = len(draws)
    shell = draws.uniform(3, low=3.0, high=8.0)
    enclosed = draws.chance(0.8, 1)
    layout.add(ROOM, torch.zeros(n, 1, 3), shell[:, None], _walls(layout, 0.0)[:, None], present=enclosed)
    floor_y = draws.uniform(1, low=1.0, high=3.0)
    slab = torch.tensor([30.0, 0.3, 30.0]).expand(n, 1, 3)
    layout.add(
        BOX, _xyz(floor_y * 0, floor_y, floor_y * 0), slab, layout.materials("floor", 1), present=~enclosed
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
    bar = _xyz(
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


BUILDERS: dict[str, Callable[[Draws], Scenes]] = {
    "room": room,
    "corridor": corridor,
    "tabletop": tabletop,
    "street": street,
    "clutter": clutter,
    "nature": nature,
}
