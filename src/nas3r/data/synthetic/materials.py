"""What surfaces look like: textures, colours and gloss drawn by the role a surface plays."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.data.synthetic import textures as tx
from nas3r.data.synthetic.draws import Draws


@dataclass(frozen=True)
class Role:
    """How a kind of surface is drawn.

    Attributes:
        textures: Relative frequency of each texture.
        scale: Least and greatest size of the texture's unit, metres.
        hue: Range of hues in turns; None for any.
        saturation: Greatest saturation.
        value: Range of brightness (display values).
        turned: Whether the texture may lie at any angle.
    """

    textures: dict[int, float]
    scale: tuple[float, float]
    hue: tuple[float, float] | None = None
    saturation: float = 0.6
    value: tuple[float, float] = (0.2, 0.95)
    turned: bool = False


_ANY = {
    tx.NOISE: 2, tx.CHECKER: 1, tx.STRIPES: 1, tx.BRICKS: 1, tx.WOOD: 1.5, tx.MARBLE: 1, tx.LEAVES: 1,
    tx.SPOTS: 1, tx.GLYPHS: 1, tx.POSTERS: 1, tx.BARS: 1, tx.FACADE: 0.5, tx.MOSAIC: 1, tx.PICTURE: 3,
}  # fmt: skip

ROLES = {
    "wall": Role(
        {tx.NOISE: 3, tx.STRIPES: 1, tx.BRICKS: 1.5, tx.POSTERS: 3, tx.SPOTS: 0.5, tx.WOOD: 0.5,
         tx.MOSAIC: 0.7, tx.PICTURE: 1, tx.BARS: 1.5, tx.GLYPHS: 0.5},
        (0.5, 2.0), saturation=0.45, value=(0.35, 0.95),
    ),
    "floor": Role(
        {tx.WOOD: 2.5, tx.CHECKER: 1, tx.MOSAIC: 1.5, tx.NOISE: 2, tx.BRICKS: 1, tx.MARBLE: 1.5,
         tx.PICTURE: 1},
        (0.25, 1.2), hue=(0.02, 0.15), saturation=0.6, value=(0.15, 0.8), turned=True,
    ),
    "ceiling": Role(
        {tx.NOISE: 3, tx.WOOD: 1.5, tx.CHECKER: 0.5, tx.MOSAIC: 1, tx.BRICKS: 0.5},
        (0.5, 2.0), saturation=0.2, value=(0.5, 1.0),
    ),
    "object": Role(_ANY, (0.2, 1.2), turned=True),
    "small": Role(_ANY, (0.05, 0.3), turned=True),
    "tiny": Role(_ANY, (0.02, 0.15), turned=True),
    "sheet": Role({tx.PICTURE: 3, tx.GLYPHS: 1, tx.POSTERS: 1, tx.BARS: 0.5}, (0.3, 1.2), value=(0.1, 1.0)),
    "page": Role({tx.PICTURE: 1, tx.GLYPHS: 2}, (0.02, 0.2), saturation=0.3, value=(0.1, 1.0)),
    "shelf": Role({tx.BARS: 1}, (0.3, 0.6), hue=(0.03, 0.12), value=(0.1, 0.6)),
    "ground": Role(
        {tx.NOISE: 2, tx.BRICKS: 1.5, tx.MOSAIC: 1, tx.LEAVES: 1, tx.STRIPES: 0.5, tx.MARBLE: 1},
        (0.6, 3.0), saturation=0.3, value=(0.2, 0.7), turned=True,
    ),
    "grass": Role(
        {tx.LEAVES: 2, tx.NOISE: 2}, (0.4, 2.5), hue=(0.1, 0.35), saturation=0.7, value=(0.15, 0.7)
    ),
    "facade": Role(
        {tx.FACADE: 4, tx.BRICKS: 1.5, tx.POSTERS: 0.7, tx.BARS: 0.4, tx.GLYPHS: 0.4},
        (1.5, 3.5), hue=(0.0, 0.15), saturation=0.5, value=(0.25, 0.9),
    ),
    "foliage": Role(
        {tx.LEAVES: 3, tx.NOISE: 1}, (0.25, 1.2), hue=(0.08, 0.4), saturation=0.8, value=(0.1, 0.7)
    ),
    "trunk": Role({tx.WOOD: 2, tx.NOISE: 1}, (0.15, 0.6), hue=(0.03, 0.12), saturation=0.5, value=(0.1, 0.6)),
    "rock": Role({tx.NOISE: 3, tx.MARBLE: 2}, (0.3, 1.5), saturation=0.25, value=(0.2, 0.8)),
}  # fmt: skip


@dataclass(frozen=True)
class Materials:
    """The material columns of `Worlds`, for m materials of each of n worlds."""

    texture: Int[Tensor, "n m"]
    texture_seed: Int[Tensor, "n m"]
    palette: Float[Tensor, "n m 3 3"]
    surface: Float[Tensor, "n m 8"]


def sample_materials(draws: Draws, roles: list[str], photo_share: float) -> Materials:
    """Draws one material for each role named.

    Args:
        draws: Of the n worlds.
        roles: Keys of `ROLES`, one for each material.
        photo_share: Share of materials that show a photo.
    """
    m = len(roles)
    chosen = [ROLES[name] for name in roles]
    texture = torch.stack([draws.choice(list(r.textures), list(r.textures.values())) for r in chosen], -1)
    texture = torch.where(draws.chance(photo_share, m), tx.PHOTO, texture)
    scale_range = torch.tensor([r.scale for r in chosen]).log()
    scale = (scale_range[:, 0] + (scale_range[:, 1] - scale_range[:, 0]) * draws.uniform(m)).exp()
    # A picture or photo shows its whole content over a few units.
    scale = torch.where((texture == tx.PICTURE) | (texture == tx.PHOTO), 1.5 * scale, scale)
    any_angle = torch.tensor([r.turned for r in chosen]) & draws.chance(0.4, m)
    quarter = 0.5 * math.pi * (draws.uniform(m) * 2).floor()
    upright = (texture == tx.GLYPHS) | (texture == tx.POSTERS) | (texture == tx.BARS) | (texture == tx.FACADE)
    turn = torch.where(any_angle, draws.uniform(m, high=2 * math.pi), torch.where(upright, 0.0, quarter))
    surface = torch.stack(
        [
            scale,
            turn.cos(),
            turn.sin(),
            draws.uniform(m, low=0.3, high=1.0),
            draws.uniform(m, low=0.4, high=1.6),
            draws.uniform(m, low=0.1, high=0.45),
            draws.log_uniform(m, low=0.8, high=4.0) * scale,
            draws.uniform(m, high=0.6) * draws.chance(0.25, m),
        ],
        -1,
    )
    # NOISE reads P as its contrast.
    surface[..., 3] = torch.where(texture == tx.NOISE, 1.0 + 2.5 * surface[..., 3], surface[..., 3])
    seed = (draws.uniform(m) * (1 << 20)).long()
    return Materials(texture, seed, _palette(draws, chosen), surface)


def _palette(draws: Draws, roles: list[Role]) -> Float[Tensor, "n m 3 3"]:
    """A base colour, a variation or a contrast, and an accent, as linear light."""
    m = len(roles)
    hue_range = torch.tensor([r.hue or (0.0, 1.0) for r in roles])
    value_range = torch.tensor([r.value for r in roles])
    strength = torch.tensor([r.saturation for r in roles])
    hue = hue_range[:, 0] + (hue_range[:, 1] - hue_range[:, 0]) * draws.uniform(m)
    saturation = strength * draws.uniform(m) ** 1.5
    value = value_range[:, 0] + (value_range[:, 1] - value_range[:, 0]) * draws.uniform(m)
    second_value = value * draws.uniform(m, low=0.25, high=0.8)
    second_value = torch.where(draws.chance(0.4, m), 1 - 0.8 * second_value, second_value)
    contrast = draws.chance(0.25, m)
    second_hue = torch.where(contrast, draws.uniform(m), hue + 0.08 * draws.normal(m))
    third_hue = torch.where(draws.chance(0.5, m), draws.uniform(m), hue)
    hues = torch.stack([hue, second_hue, third_hue], -1)
    saturations = torch.stack([saturation, strength * draws.uniform(m), strength * draws.uniform(m)], -1)
    values = torch.stack([value, second_value, draws.uniform(m, low=0.05, high=0.95)], -1)
    return _rgb(hues, saturations, values) ** 2


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Display RGB of hue (in turns), saturation and value."""
    phase = hue[..., None] + torch.tensor([0.0, 2 / 3, 1 / 3])
    wheel = ((phase - phase.floor()) * 6 - 3).abs() - 1
    return value[..., None] * (1 - saturation[..., None] * (1 - wheel.clamp(0, 1)))
