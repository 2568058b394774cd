"""Camera paths through worlds, like those of hand-held and walk-through video.

For every world several viewpoints are drawn on its stage; the first with free space around it and something
to see (judged by a few depth probes) is taken. A path is then laid from it whose length is a fraction of the
mean depth in view and whose turn is drawn independently, so that baselines and rotations are real relative
to the scene. Of several such paths, ever shorter, the first that keeps its distance from all surfaces is
taken.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.data.synthetic.config import PATHS, SyntheticConfig
from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.render import probe_depth
from nas3r.data.synthetic.space import first_clear_path, free_distance
from nas3r.data.synthetic.worlds import Worlds
from nas3r.geometry import Cameras, make_pose, so3_exp

_PATH_STREAM = 10
_VIEWPOINTS = 12  # drawn for each world
_PROBED = 4  # of them looked through
_PROBES = 4  # depth probes along each image side
# Scale of the way tried in turn, three directions each; the last is next to standing still.
_SHRINK = (1.0, 1.0, 1.0, 0.6, 0.6, 0.6, 0.3, 0.3, 0.3, 0.02)


@dataclass(frozen=True)
class _Start:
    """Where paths begin: position, orientation, field of view and mean depth, one per world."""

    position: Float[Tensor, "b 3"]
    rotation: Float[Tensor, "b 3 3"]
    focal: Float[Tensor, "b"]
    depth: Float[Tensor, "b"]


def sample_paths(worlds: Worlds, frames: int | None = None, config: SyntheticConfig | None = None) -> Cameras:
    """Draws a camera path through each world; square images, one focal length for a path.

    Args:
        worlds: On the CPU, float32.
        frames: Number of views; `config.frames` if None. The path is the same way at another pace.
        config: Kinds of path, baseline, rotation, field of view.

    Returns:
        Cameras [b, frames], which never come closer to a surface than the world's clearance.
    """
    config = config or SyntheticConfig()
    frames = frames or config.frames
    draws = Draws(worlds.seed, _PATH_STREAM)
    start = _viewpoint(worlds, draws, config)
    kind = draws.choice(range(len(PATHS)), [config.paths.get(name, 0.0) for name in PATHS])
    pose = _free_path(worlds, draws, config, start, kind, frames)
    return Cameras(pose, _intrinsics(start.focal, frames))


def fit_aspect(cameras: Cameras, height: int, width: int) -> Cameras:
    """Cameras for square images adapted to another shape; the longer side keeps its angle of view."""
    intrinsics = cameras.intrinsics.clone()
    longer = max(height, width)
    intrinsics[..., 0, 0] *= longer / width
    intrinsics[..., 1, 1] *= longer / height
    return Cameras(cameras.world_from_camera, intrinsics)


def _orientation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Float[Tensor, "*b 3 3"]:
    """world_from_camera rotation: heading (0 is +z, towards +x), looking down by `pitch`, roll."""
    zero = torch.zeros_like(yaw)
    about_y = so3_exp(torch.stack([zero, yaw, zero], -1))
    about_x = so3_exp(torch.stack([-pitch, zero, zero], -1))
    about_z = so3_exp(torch.stack([zero, zero, roll], -1))
    return about_y @ about_x @ about_z


def _viewpoint(worlds: Worlds, draws: Draws, config: SyntheticConfig) -> _Start:
    """The first of several random viewpoints with free space and something to see."""
    b, k = len(worlds), _VIEWPOINTS
    position = worlds.stage[:, :1] + worlds.stage[:, 1:] * draws.uniform(k, 3, low=-1.0)
    # The middle of the stage is free by construction: the last resort.
    position[:, -1] = worlds.stage[:, 0]
    toward = worlds.focus[:, None] - position
    flat = toward[..., ::2].norm(dim=-1)
    aimed = draws.chance(0.5, k)
    yaw = torch.where(aimed, torch.atan2(toward[..., 0], toward[..., 2]), draws.uniform(k, high=2 * math.pi))
    pitch = torch.where(aimed, torch.atan2(toward[..., 1], flat), 0.25 * draws.normal(k))
    steep = draws.chance(0.2, k)
    pitch = torch.where(steep, draws.uniform(k, low=-0.7, high=1.1), pitch.clamp(-0.7, 1.1))
    yaw, pitch = yaw + 0.25 * draws.normal(k), pitch + 0.12 * draws.normal(k)
    rotation = _orientation(yaw, pitch, math.radians(config.roll) * draws.normal(k))
    low, high = config.field_of_view
    view = low + (high - low) * draws.uniform().pow(config.narrow_views)
    focal = 0.5 / torch.tan(torch.deg2rad(0.5 * view))

    # Of the viewpoints with free space around them, the first few are looked through.
    free = free_distance(worlds, position) > 1.5 * worlds.clearance[:, None]
    rows = torch.arange(b)[:, None]
    first = (~free).int().argsort(dim=-1, stable=True)[:, :_PROBED]
    position, rotation = position[rows, first], rotation[rows, first]
    intrinsics = _intrinsics(focal, _PROBED)
    depth = probe_depth(worlds, Cameras(make_pose(rotation, position), intrinsics), _PROBES, _PROBES)
    good, mean = _worth_filming(depth.flatten(2), worlds.clearance)
    best = (good + 0.01 * torch.arange(_PROBED).flip(0)).argmax(-1, keepdim=True)
    return _Start(
        position[rows, best][:, 0],
        rotation[rows, best][:, 0],
        focal,
        mean[rows, best][:, 0].clamp(0.05, 60.0),
    )


def _intrinsics(focal: Float[Tensor, "b"], views: int) -> Float[Tensor, "b v 3 3"]:
    intrinsics = torch.eye(3).repeat(len(focal), views, 1, 1)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal[:, None]
    intrinsics[..., :2, 2] = 0.5
    return intrinsics


def _worth_filming(
    depth: Float[Tensor, "b k n"], clearance: Float[Tensor, "b"]
) -> tuple[Bool[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Whether probes of a view meet enough, not too near, and at more than one depth; and their mean depth.

    The mean is harmonic: parallax goes with the inverse of depth, and sky counts for none.
    """
    seen = depth > 0
    inverse = torch.where(seen, 1 / depth.clamp_min(1e-6), 0.0)
    mean = seen.sum(-1).clamp_min(1) / inverse.sum(-1).clamp_min(1e-6)
    nearest = torch.where(seen, depth, torch.inf).amin(-1)
    farthest = torch.where(seen, depth, 0.0).amax(-1)
    enough = seen.float().mean(-1) > 0.45
    return enough & (nearest > 2 * clearance[:, None]) & (farthest > 1.4 * nearest), mean


@dataclass(frozen=True)
class _Ways:
    """k paths for each of b worlds: where the camera is and how it turns from the starting orientation."""

    position: Float[Tensor, "b k f 3"]
    spin: Float[Tensor, "b k f 3"]


def _free_path(
    worlds: Worlds, draws: Draws, config: SyntheticConfig, start: _Start, kind: Int[Tensor, "b"], frames: int
) -> Float[Tensor, "b f 4 4"]:
    """The first of several paths, ever shorter, that stays clear of all surfaces."""
    ways = _shaken(_ways(draws, config, start, kind, frames), draws, config, start)
    best = first_clear_path(worlds, ways.position)
    rows = torch.arange(len(worlds))
    rotation = start.rotation[:, None] @ so3_exp(ways.spin[rows, best])
    return make_pose(rotation, ways.position[rows, best])


def _ways(draws: Draws, config: SyntheticConfig, start: _Start, kind: Tensor, frames: int) -> _Ways:
    """k paths through every starting viewpoint, which lies at their middle; the later ones are shorter."""
    low, high = (max(x, 1e-4) for x in config.baseline)
    length = draws.log_uniform(1, low=low, high=high) * start.depth[:, None] * torch.tensor(_SHRINK)
    low, high = (math.radians(x) for x in config.rotation)
    turn = draws.uniform(1, low=low, high=high)
    tau = torch.linspace(-0.5, 0.5, frames)
    # Not at an even pace: up to twice as fast in one place as in another.
    pace = draws.uniform(1, low=-0.05, high=0.05)
    tau = (tau + pace * (2 * math.pi * (tau + draws.uniform(1))).sin())[:, None]  # [b, 1, f]
    straight = _straight_ways(draws, start, kind, length, turn, tau)
    around = _orbits(draws, start, length, tau)
    orbits = (kind == PATHS.index("orbit"))[:, None, None, None]
    return _Ways(
        torch.where(orbits, around.position, straight.position),
        torch.where(orbits, around.spin, straight.spin),
    )


def _straight_ways(
    draws: Draws, start: _Start, kind: Tensor, length: Tensor, turn: Tensor, tau: Tensor
) -> _Ways:
    """Dolly, strafe, look, walk and drift: gently curved ways while the camera turns about a fixed axis."""
    k = length.shape[1]
    forward, aside = torch.tensor([0.0, 0.0, 1.0]), 0.15 * draws.normal(k, 3)
    sign = draws.sign(k, 1)
    across = torch.cat([sign, 0.3 * draws.normal(k, 2)], -1)
    ways = {
        "dolly": aside + sign * forward,
        "strafe": across,
        "look": 0.5 * draws.direction(k),
        "walk": aside + forward,
        "drift": draws.direction(k),
    }
    way = torch.stack([ways.get(name, aside) for name in PATHS])[kind, torch.arange(len(kind))]
    bow = (tau * tau - 0.08)[..., None]
    local = way[:, :, None] * tau[..., None] + 0.25 * draws.normal(k, 1, 3) * bow
    # Mostly about the camera's vertical, with some nod and roll.
    axis = torch.cat([0.35 * draws.normal(k, 1), draws.sign(k, 1), 0.15 * draws.normal(k, 1)], -1)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    spin = axis[:, :, None] * tau[..., None] + 0.3 * draws.normal(k, 1, 3) * bow
    # Hands and feet: walking and drifting sway.
    phase, rate = draws.uniform(k, 1, 3), draws.uniform(k, 1, 3, low=1.0, high=2.5)
    sway = (2 * math.pi * (rate * tau[..., None] + phase)).sin()
    sway = sway * torch.where(kind == PATHS.index("drift"), 0.12, 0.03)[:, None, None, None]
    local = (local + sway) * length[..., None, None]
    spin = (spin + sway.flip(-1)) * turn[:, None, None]
    # A strafing camera keeps looking at the same things more often than not.
    away = start.depth[:, None] * draws.uniform(k, low=0.7, high=2.0)
    follow = -sign * torch.atan2(length, away)[..., None] * tau + 0.3 * spin[..., 1]
    follows = (kind == PATHS.index("strafe"))[:, None] & draws.chance(0.7, k)
    spin[..., 1] = torch.where(follows[..., None], follow, spin[..., 1])
    position = start.position[:, None, None] + torch.einsum("bij,bkfj->bkfi", start.rotation, local)
    return _Ways(position, spin)


def _orbits(draws: Draws, start: _Start, length: Tensor, tau: Tensor) -> _Ways:
    """Turns about a point ahead of the camera, which stays in the same place of the image."""
    b, k = length.shape
    radius = start.depth[:, None] * draws.uniform(1, low=0.6, high=1.3)
    angle = (length / radius).clamp_max(2.0) * draws.sign(k)
    pole = torch.stack([0.25 * draws.normal(k), torch.ones(b, k), 0.1 * draws.normal(k)], -1)
    pole = (pole / pole.norm(dim=-1, keepdim=True))[:, :, None]
    angle = (angle[..., None] * tau)[..., None]
    # The forward axis z turned about the pole (Rodrigues' formula on one vector).
    forward = torch.tensor([0.0, 0.0, 1.0]).expand_as(pole)
    turned = (
        forward * angle.cos()
        + torch.linalg.cross(pole, forward) * angle.sin()
        + pole * pole[..., 2:] * (1 - angle.cos())
    )
    local = radius[..., None, None] * (forward - turned)
    position = start.position[:, None, None] + torch.einsum("bij,bkfj->bkfi", start.rotation, local)
    return _Ways(position, pole * angle)


def _shaken(ways: _Ways, draws: Draws, config: SyntheticConfig, start: _Start) -> _Ways:
    """The same ways in a hand that is not quite still: a few fast sines."""
    rate, phase = draws.uniform(1, 3, 6, low=2.0, high=6.0), draws.uniform(1, 3, 6)
    frames = ways.position.shape[2]
    tau = torch.linspace(-0.5, 0.5, frames)[:, None, None]
    jolt = (2 * math.pi * (rate * tau + phase)).sin().mean(-2)[:, None]
    amount = 0.005 * config.shake * start.depth[:, None, None, None]
    return _Ways(ways.position + amount * jolt[..., :3], ways.spin + 0.015 * config.shake * jolt[..., 3:])
