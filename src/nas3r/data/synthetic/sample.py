"""Worlds from seeds."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from nas3r.data.synthetic.config import FAMILIES, SyntheticConfig
from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families import BUILDERS, Scenes
from nas3r.data.synthetic.materials import sample_materials
from nas3r.data.synthetic.shapes import ROOM, UNUSED
from nas3r.data.synthetic.space import solid_distances
from nas3r.data.synthetic.worlds import LIGHT_COLUMNS, Worlds

_SOLIDS = 40  # slots a world has; the richest family fills 36
_MATERIALS = 20

# Streams of draws, so that a change to one does not move the others.
_WORLD_STREAM, _LIGHT_STREAM, _STRESS_STREAM = 1, 2, 3


def sample_worlds(
    seeds: Sequence[int] | Int[Tensor, "b"],
    config: SyntheticConfig | None = None,
    device: torch.device | str = "cpu",
) -> Worlds:
    """Draws a world for each seed.

    A world depends on its seed and the configuration alone, not on the batch it is drawn in. Drawing happens
    on the CPU, so that a seed means the same world on every device.

    Args:
        seeds: Whole numbers in [0, 2^62).
        config: Families, textures and stress; defaults if None.
        device: Where the result lives.
    """
    config = config or SyntheticConfig()
    seed = torch.as_tensor(seeds, dtype=torch.long)
    if seed.ndim != 1 or len(seed) == 0 or int(seed.min()) < 0 or int(seed.max()) >= 1 << 62:
        raise ValueError(f"seeds: expected a non-empty list of whole numbers in [0, 2^62), got {seeds}")
    draws = Draws(seed, _WORLD_STREAM)
    family = draws.choice(range(len(FAMILIES)), [config.families.get(name, 0.0) for name in FAMILIES])
    parts, order = [], []
    for index, name in enumerate(FAMILIES):
        rows = (family == index).nonzero()[:, 0]
        if len(rows):
            parts.append(_family_worlds(index, name, draws.pick(rows), config))
            order.append(rows)
    return Worlds.cat(parts)[torch.cat(order).argsort()].to(device)


def _family_worlds(index: int, name: str, draws: Draws, config: SyntheticConfig) -> Worlds:
    scenes = BUILDERS[name](draws)
    n = len(draws)
    photo_share = config.photo_fraction if config.photos else 0.0
    materials = sample_materials(draws, scenes.layout.roles, photo_share)
    solids = {key: torch.cat(parts, 1) for key, parts in scenes.layout.solids.items()}
    light, exposure = _light(scenes, draws.seed)
    worlds = Worlds(
        seed=draws.seed,
        family=torch.full((n,), index),
        kind=_padded(solids["kind"], _SOLIDS, 0),
        center=_padded(solids["center"], _SOLIDS, 0.0),
        half=_padded(solids["half"], _SOLIDS, 1.0),
        rotation=_padded(solids["rotation"], _SOLIDS, 0.0),
        velocity=torch.zeros(n, _SOLIDS, 3),
        form=_padded(solids["form"], _SOLIDS, 0.5),
        material=_padded(solids["material"], _SOLIDS, 0),
        texture=_padded(materials.texture, _MATERIALS, 0),
        texture_seed=_padded(materials.texture_seed, _MATERIALS, 0),
        palette=_padded(materials.palette, _MATERIALS, 0.0),
        surface=_padded(materials.surface, _MATERIALS, 1.0),
        light=light,
        exposure=exposure,
        stage=scenes.stage,
        focus=scenes.focus,
        clearance=torch.full((n,), scenes.clearance),
        distortion=torch.zeros(n),
    )
    return _stressed(_cleared(worlds), config)


def _padded(values: Tensor, slots: int, filler: float) -> Tensor:
    """Values along dimension 1 extended to a fixed number of slots."""
    shape = (values.shape[0], slots - values.shape[1], *values.shape[2:])
    return torch.cat([values, torch.full(shape, filler, dtype=values.dtype)], 1)


def _cleared(worlds: Worlds) -> Worlds:
    """Without the solids that block the middle of the stage, so that a camera always has a place to stand."""
    near = solid_distances(worlds, worlds.stage[:, :1])[:, 0] < 2.5 * worlds.clearance[:, None]
    worlds.kind[near & (worlds.kind != ROOM)] = UNUSED
    return worlds


def _light(scenes: Scenes, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Light columns and exposure: a lamp indoors, sun and sky outdoors."""
    draws = Draws(seed, _LIGHT_STREAM)
    n = len(seed)
    light = torch.zeros(n, LIGHT_COLUMNS)
    warmth = draws.uniform(1, low=-0.12, high=0.2) * torch.tensor([1.0, 0.0, -1.0])
    strength = draws.uniform(1, low=0.25, high=0.55)
    lamp = draws.uniform(1, low=0.4, high=1.1)
    sun = draws.direction()
    sun[:, 1] = -sun[:, 1].abs() - 0.25
    horizon = draws.uniform(1, low=0.5, high=0.95) + 0.1 * draws.normal(3)
    zenith = torch.tensor([0.1, 0.25, 0.6]) * draws.uniform(1, low=0.4, high=1.3)
    light[:, 0:3] = strength * (1 - 0.5 * warmth)
    light[:, 7:10] = lamp * (1 + warmth)
    if scenes.lamp is None:
        light[:, 3:6] = sun / sun.norm(dim=-1, keepdim=True)
        light[:, 10] = 1.0
    else:
        light[:, 3:6] = scenes.lamp
        light[:, 6] = 1.0
        light[:, 10] = scenes.stage[:, 1].amax(-1)
    light[:, 11:14] = horizon.clamp(0, 1)
    light[:, 14:17] = zenith.clamp(0, 1)
    light[:, 17] = draws.uniform(low=0.5, high=1.0)
    return light, draws.log_uniform(low=0.8, high=1.8)


def _stressed(worlds: Worlds, config: SyntheticConfig) -> Worlds:
    """Lens distortion and moving solids, as asked for."""
    draws = Draws(worlds.seed, _STRESS_STREAM)
    strength = draws.uniform(2) if config.randomise_stress else torch.ones(len(worlds), 2)
    worlds.distortion[:] = draws.sign() * strength[:, 0] * config.distortion
    moves = draws.uniform(_SOLIDS) < (strength[:, 1:] * config.moving)
    # Rooms, floors and houses stay: nothing larger than the stage moves.
    moves &= (worlds.kind != ROOM) & (worlds.half.amax(-1) < worlds.stage[:, 1].amax(-1, keepdim=True))
    speed = 0.02 * worlds.stage[:, 1].amax(-1)[:, None, None] * draws.uniform(_SOLIDS, 1, low=0.3)
    worlds.velocity[:] = torch.where(moves[..., None], draws.direction(_SOLIDS) * speed, 0.0)
    return worlds
