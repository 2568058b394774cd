"""Camera paths through a reconstruction, for videos."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras, make_pose, so3_exp, so3_log


def through_views(cameras: Cameras, frames: int) -> Cameras:
    """A smooth path from the first view to the last; played there and back it loops without a jump.

    Centres follow a Catmull-Rom spline (Catmull and Rom, "A class of local interpolating splines", 1974),
    rotations the shortest way between neighbours; both slow down at the ends.

    Args:
        cameras: Views in the order they are passed, batch of one.
        frames: Number of frames, at least 2.
    """
    count = cameras.num_views
    if frames < 2 or count < 1:
        raise ValueError(f"path: expected at least 2 frames and 1 view, got {frames} and {count}")
    phase = torch.linspace(0, 1, frames, dtype=torch.float64)
    places = (count - 1) * (0.5 - 0.5 * torch.cos(math.pi * phase))  # zero speed at both ends
    low = places.floor().long().clamp(max=max(count - 2, 0))
    part = places - low
    centers = _spline(cameras.centers[0].double(), low, part)
    rotations = _between(cameras.world_from_camera[0, :, :3, :3].double(), low, part)
    intrinsics = cameras.intrinsics[0].double()
    high = (low + 1).clamp(max=count - 1)
    mixed = intrinsics[low] * (1 - part)[:, None, None] + intrinsics[high] * part[:, None, None]
    dtype = cameras.world_from_camera.dtype
    return Cameras(make_pose(rotations, centers)[None].to(dtype), mixed[None].to(dtype))


def orbit(cameras: Cameras, depth: float, frames: int, *, radius: float = 0.12) -> Cameras:
    """A small ellipse around the middle view that keeps looking at one point of the scene.

    Args:
        cameras: Views, batch of one; the middle one is taken.
        depth: Distance of the point that is looked at, e.g. the median depth.
        frames: Number of frames, at least 2.
        radius: Of the ellipse, as a part of `depth`.
    """
    if frames < 2 or not depth > 0:
        raise ValueError(f"orbit: expected at least 2 frames and a positive depth, got {frames} and {depth}")
    middle = cameras.views([cameras.num_views // 2])
    angle = 2 * math.pi * torch.arange(frames, dtype=torch.float64) / frames
    zero = torch.zeros_like(angle)
    offset = radius * depth * torch.stack([angle.sin(), 0.5 * angle.cos(), zero], -1)
    toward = torch.stack([zero, zero, zero + depth], -1) - offset
    poses = middle.world_from_camera[0, 0].double() @ make_pose(_looking(toward), offset)
    dtype = middle.world_from_camera.dtype
    return Cameras(poses[None].to(dtype), middle.intrinsics.expand(1, frames, 3, 3))


def _looking(direction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotations whose z axis is `direction` and whose x axis stays horizontal."""
    z = torch.nn.functional.normalize(direction, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0], dtype=z.dtype).expand_as(z)
    x = torch.nn.functional.normalize(torch.linalg.cross(down, z), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], -1)


def _spline(points: Float[Tensor, "v 3"], low: Tensor, part: Tensor) -> Float[Tensor, "n 3"]:
    last = len(points) - 1
    p0, p1, p2, p3 = (points[(low + i).clamp(0, last)] for i in (-1, 0, 1, 2))
    t = part[:, None]
    return 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )


def _between(rotations: Float[Tensor, "v 3 3"], low: Tensor, part: Tensor) -> Float[Tensor, "n 3 3"]:
    first, second = rotations[low], rotations[(low + 1).clamp(max=len(rotations) - 1)]
    return first @ so3_exp(part[:, None] * so3_log(first.mT @ second))
