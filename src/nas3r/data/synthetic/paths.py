"""Camera paths through worlds, like those of hand-held and walk-through video.

For every world several viewpoints are drawn on its stage; the first with free space around it and something to
see (judged by a few depth probes) is taken. A path is then laid from it whose length is a fraction of the mean
depth in view and whose turn is drawn independently, so that baselines and rotations are real relative to the
scene. Of several such paths, ever shorter, the first that keeps its distance from all surfaces is taken.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.data.synthetic.config import PATHS, SyntheticConfig
from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.render import probe_depth
from nas3r.data.synthetic.space import free_distance
from nas3r.data.synthetic.worlds import Worlds
from nas3r.geometry import Cameras, make_pose, so3_exp

_PATH_STREAM = 10
_VIEWPOINTS = 12  # tried for each world
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
    intrinsics = torch.eye(3).repeat(len(worlds), frames, 1, 1)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = start.focal[:, None]
    intrinsics[..., :2, 2] = 0.5
    return Cameras(pose, intrinsics)


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
    focal = 0.5 / torch.tan(torch.deg2rad(0.5 * draws.uniform(low=low, high=high)))

    free = free_distance(worlds, position) > 1.5 * worlds.clearance[:, None]
    intrinsics = torch.eye(3).repeat(b, k, 1, 1)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal[:, None]
    intrinsics[..., :2, 2] = 0.5
    depth = probe_depth(worlds, Cameras(make_pose(rotation, position), intrinsics), _PROBES, _PROBES)
    depth = depth.flatten(2)
    seen = depth > 0
    # Sky counts as very far in the harmonic mean: distant views ask for long baselines.
    mean = seen.sum(-1).clamp_min(1) / torch.where(seen, 1 / depth.clamp_min(1e-6), 0.0).sum(-1).clamp_min(
        1e-6
    )
    nearest = torch.where(seen, depth, torch.inf).amin(-1)
    farthest = torch.where(seen, depth, 0.0).amax(-1)
    good = (
        (seen.float().mean(-1) > 0.45)
        & (nearest > 2 * worlds.clearance[:, None])
        & (farthest > 1.4 * nearest)
    )
    rank = torch.arange(k).flip(0) * 0.01
    best = (2.0 * free + 1.0 * good + rank).argmax(-1)
    rows = torch.arange(b)
    return _Start(position[rows, best], rotation[rows, best], focal, mean[rows, best].clamp(0.05, 60.0))


def _free_path(
    worlds: Worlds,
    draws: Draws,
    config: SyntheticConfig,
    start: _Start,
    kind: Int[Tensor, "b"],
    frames: int,
) -> Float[Tensor, "b f 4 4"]:
    """The first of several paths, ever shorter, that stays clear of all surfaces."""
    b, k = len(worlds), len(_SHRINK)
    position, rotation = _candidates(draws, config, start, kind, frames)
    time = torch.arange(frames, dtype=torch.float32).expand(b, k, frames)
    free = free_distance(worlds, position.reshape(b, -1, 3), time.reshape(b, -1)).reshape(b, k, frames)
    clear = (free > worlds.clearance[:, None, None]).all(-1)
    rank = torch.arange(k).flip(0) * 0.01
    best = (clear + rank).argmax(-1)
    rows = torch.arange(b)
    return make_pose(rotation[rows, best], position[rows, best])


def _candidates(
    draws: Draws, config: SyntheticConfig, start: _Start, kind: Tensor, frames: int
) -> tuple[Float[Tensor, "b k f 3"], Float[Tensor, "b k f 3 3"]]:
    """Positions and orientations along k paths from every starting viewpoint (which lies in the middle)."""
    b, k = len(kind), len(_SHRINK)
    low, high = config.baseline
    length = draws.log_uniform(1, low=max(low, 1e-4), high=max(high, 1e-4)) * start.depth[:, None]
    length = (length * torch.tensor(_SHRINK))[..., None]
    low, high = (math.radians(x) for x in config.rotation)
    turn = draws.uniform(1, 1, low=low, high=high).expand(b, k, 1)
    sign, turn_sign = draws.sign(k, 1), draws.sign(k, 1)
    tau = torch.linspace(-0.5, 0.5, frames)
    # Not at an even pace: faster in places, up to twice as fast as slow.
    tau = tau + draws.uniform(1, 1, low=-0.05, high=0.05) * (
        (2 * math.pi * tau + 2 * math.pi * draws.uniform(1, 1)).sin()
    )
    side, up, ahead = start.rotation.unbind(-1)

    # Turn: mostly about the camera's vertical, with some nod and roll.
    axis = torch.cat([0.35 * draws.normal(k, 1), draws.sign(k, 1), 0.15 * draws.normal(k, 1)], -1)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    spin = axis[:, :, None] * (turn * tau)[..., None]
    bend = 0.3 * draws.normal(k, 1, 3) * turn[..., None]
    spin = spin + bend * (tau * tau - 0.08)[..., None]

    drift = draws.normal(k, 3) * 0.15
    way = torch.zeros(b, k, 3)
    is_kind = {name: (kind == i)[:, None, None] for i, name in enumerate(PATHS)}
    way = torch.where(is_kind["dolly"], drift + sign * torch.tensor([0.0, 0.0, 1.0]), way)
    across = torch.cat([sign, 0.3 * draws.normal(k, 2)], -1)
    way = torch.where(is_kind["strafe"], across, way)
    way = torch.where(is_kind["look"], 0.5 * draws.direction(k), way)
    way = torch.where(is_kind["walk"], drift + torch.tensor([0.0, 0.0, 1.0]), way)
    way = torch.where(is_kind["drift"], draws.direction(k), way)
    local = way[:, :, None] * (length * tau)[..., None]
    curve = 0.25 * draws.normal(k, 1, 3) * length[..., None]
    local = local + curve * (tau * tau - 0.08)[..., None]

    # A strafing camera keeps looking at the same things more often than not.
    follow = torch.atan2(length, start.depth[:, None, None] * draws.uniform(k, 1, low=0.7, high=2.0))
    keep = -sign * follow * tau + 0.3 * spin[..., 1]
    kept = torch.stack([spin[..., 0], keep, spin[..., 2]], -1)
    spin = torch.where((is_kind["strafe"] & draws.chance(0.7, k)[..., None])[..., None], kept, spin)

    # Walking and waving are not straight.
    phase = draws.uniform(k, 1, 3, high=2 * math.pi)
    pace = draws.uniform(k, 1, 3, low=1.0, high=2.5)
    swing = (2 * math.pi * pace * tau[..., None] + phase).sin()
    amount = torch.where(kind == PATHS.index("drift"), 0.12, 0.03)[:, None, None, None]
    local = local + amount * swing * length[..., None]
    spin = spin + amount * swing.flip(-1) * turn[..., None]

    rotation = start.rotation[:, None, None] @ so3_exp(spin)
    position = start.position[:, None, None] + torch.einsum("bij,bkfj->bkfi", start.rotation, local)

    # Orbits turn about a point ahead, by as much as the baseline asks.
    radius = start.depth[:, None, None] * draws.uniform(1, 1, low=0.6, high=1.3)
    angle = (length / radius).clamp_max(2.0) * sign
    pole = torch.stack([0.25 * draws.normal(k), torch.ones(b, k), 0.1 * draws.normal(k)], -1)
    pole = pole / pole.norm(dim=-1, keepdim=True)
    orbit = start.rotation[:, None, None] @ so3_exp(pole[:, :, None] * (angle * tau)[..., None])
    target = start.position[:, None, None] + radius[..., None] * ahead[:, None, None]
    around = target - radius[..., None] * orbit[..., 2]
    orbits = is_kind["orbit"][..., None]
    position = torch.where(orbits, around, position)
    rotation = torch.where(orbits[..., None], orbit, rotation)

    # Hand shake: a few fast sines.
    rate = draws.uniform(1, 3, 6, low=2.0, high=6.0)
    start_at = draws.uniform(1, 3, 6, high=2 * math.pi)
    jolt = (2 * math.pi * rate[:, :, None] * tau[..., None, None] + start_at[:, :, None]).sin().mean(-2)
    position = position + 0.005 * config.shake * start.depth[:, None, None, None] * jolt[..., :3]
    return position, rotation @ so3_exp(0.015 * config.shake * jolt[..., 3:])
