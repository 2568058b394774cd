"""A small world whose truth is known: bumpy textured walls of opaque Gaussians, seen from an arc."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.geometry import Cameras, se3_exp
from nas3r.refine import lift_depth
from nas3r.render import render

FOCAL = 1.1


@dataclass(frozen=True)
class World:
    """True Gaussians and cameras with what the cameras see."""

    gaussians: Gaussians
    cameras: Cameras
    images: Float[Tensor, "v 3 h w"]
    depth: Float[Tensor, "v h w"]


@dataclass(frozen=True)
class Start:
    """A perturbed start, as a feed-forward network might give it."""

    gaussians: Gaussians
    cameras: Cameras
    anchors: Tensor


def _texture(x: Tensor, y: Tensor, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Smooth noise: sums of waves from coarse to fine."""
    color = torch.full((len(x), 3), 0.5)
    for frequency in (1.0, 2.0, 4.0, 8.0):
        for _ in range(3):
            angle, phase, *rgb = torch.rand(5, generator=generator).tolist()
            wave = torch.sin(
                2 * math.pi * phase
                + 2 * frequency * (x * math.cos(2 * math.pi * angle) + y * math.sin(2 * math.pi * angle))
            )
            color = color + 0.25 / frequency**0.5 * wave[:, None] * (torch.tensor(rgb) - 0.5)
    return color.clamp(0, 1)


def make_world(views: int = 8, size: int = 64, seed: int = 0) -> World:
    """Cameras on an arc of 25 degrees, looking at a wall about 4 units away with boxes in front of it."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.linspace(-4.0, 4.0, 2 * size)
    y, x = (t.flatten() for t in torch.meshgrid(side, side, indexing="ij"))
    z = 4.5 + 0.4 * torch.sin(1.3 * x) * torch.cos(1.7 * y)
    for cx, cy in torch.rand(5, 2, generator=generator) * 3 - 1.5:
        z = torch.where(((x - cx).abs() < 0.4) & ((y - cy).abs() < 0.4), z - 0.8, z)
    n = len(x)
    spacing = 8.0 / (2 * size)
    gaussians = Gaussians(
        torch.stack([x, y, z], -1)[None],
        torch.tensor([1.0, 0, 0, 0]).repeat(1, n, 1),
        torch.full((1, n, 3), 0.7 * spacing),
        torch.full((1, n), 0.95),
        ((_texture(x, y, generator) - 0.5) / SH_C0)[None, :, None],
    )
    angles = torch.deg2rad(torch.linspace(-12.5, 12.5, views))
    heights = 0.3 * torch.sin(torch.arange(views) * 1.7)
    twist = torch.zeros(views, 6)
    twist[:, 4] = angles  # turn about y ...
    poses = se3_exp(twist)
    pivot = torch.tensor([0.0, 0.0, 4.0])
    poses[:, :3, 3] = pivot - poses[:, :3, :3] @ pivot  # ... round a point of the wall
    poses[:, 1, 3] += heights
    k = torch.tensor([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1.0]]).repeat(views, 1, 1)
    cameras = Cameras(poses[None], k[None])
    with torch.no_grad():
        rendering = render(gaussians, cameras, size, size)
    return World(gaussians, cameras, rendering.color[0].clamp(0, 1), rendering.depth[0])


def perturb(
    world: World,
    train: list[int],
    *,
    degrees: float = 3.0,
    translation: float = 0.05,
    focal: float = 0.05,
    depth: float = 0.05,
    seed: int = 0,
) -> Start:
    """Noise on every camera but the first training view; Gaussians lifted from smoothly wrong depth.

    Args:
        world: The truth.
        train: Views the Gaussians are made from.
        degrees: Rotation of each camera.
        translation: Of each camera, relative to the distance of the scene (4 units).
        focal: Relative error of the common focal length.
        depth: Standard deviation of log-depth, on a grid of 4 x 4 over each image.
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    v = world.cameras.num_views
    noise = torch.nn.functional.normalize(torch.randn(v, 2, 3, generator=generator), dim=-1)
    twist = torch.cat([4.0 * translation * noise[:, 0], math.radians(degrees) * noise[:, 1]], -1)
    twist[train[0]] = 0
    k = world.cameras.intrinsics.clone()
    k[..., :2, :2] *= 1 + focal
    cameras = Cameras(world.cameras.world_from_camera @ se3_exp(twist), k)
    grid = depth * torch.randn(v, 1, 4, 4, generator=generator)
    change = torch.nn.functional.interpolate(grid, world.depth.shape[-2:], mode="bicubic")[:, 0].exp()
    gaussians, index = lift_depth(world.images[train], (world.depth * change)[train], cameras.views(train))
    return Start(gaussians, cameras, torch.tensor(train)[index])
