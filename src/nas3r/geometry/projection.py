"""Pixels to points and back."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.camera import Cameras
from nas3r.geometry.se3 import transform_points


def pixel_grid(
    height: int,
    width: int,
    *,
    pixel_offset: float = 0.5,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "h w 2"]:
    """Normalised image coordinates (x, y) in [0, 1] of every pixel.

    Args:
        height: Number of rows.
        width: Number of columns.
        pixel_offset: 0.5 for pixel centres (the convention here); 0.0 for the corners that official
            checkpoints unproject at.
        dtype: Of the result.
        device: Of the result.
    """
    x = (torch.arange(width, dtype=dtype, device=device) + pixel_offset) / width
    y = (torch.arange(height, dtype=dtype, device=device) + pixel_offset) / height
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def camera_rays(intrinsics: Float[Tensor, "*b 3 3"], xy: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 3"]:
    """Rays with z = 1 through normalised image coordinates, in the camera frame.

    Skew is honoured: solves K ray = (x, y, 1) for an upper triangular K by back-substitution.
    """
    fx, fy = intrinsics[..., None, 0, 0], intrinsics[..., None, 1, 1]
    cx, cy, skew = intrinsics[..., None, 0, 2], intrinsics[..., None, 1, 2], intrinsics[..., None, 0, 1]
    y = (xy[..., 1] - cy) / fy
    x = (xy[..., 0] - cx - skew * y) / fx
    return torch.stack([x, y, torch.ones_like(x)], -1)


def unproject(
    cameras: Cameras, xy: Float[Tensor, "b v n 2"], depth: Float[Tensor, "b v n"]
) -> Float[Tensor, "b v n 3"]:
    """World points at normalised image coordinates `xy` with z-depth `depth`."""
    return transform_points(cameras.world_from_camera, camera_rays(cameras.intrinsics, xy) * depth[..., None])


def unproject_depth(
    cameras: Cameras, depth: Float[Tensor, "b v h w"], *, pixel_offset: float = 0.5
) -> Float[Tensor, "b v h w 3"]:
    """World points of depth maps (z-depth, in the unit of the poses)."""
    b, v, h, w = depth.shape
    grid = pixel_grid(h, w, pixel_offset=pixel_offset, dtype=depth.dtype, device=depth.device)
    points = unproject(cameras, grid.reshape(1, 1, h * w, 2).expand(b, v, -1, -1), depth.reshape(b, v, h * w))
    return points.reshape(b, v, h, w, 3)


def project(
    cameras: Cameras, points: Float[Tensor, "b n 3"]
) -> tuple[Float[Tensor, "b v n 2"], Float[Tensor, "b v n"]]:
    """Normalised image coordinates and z-depths of world points in every view.

    Points at or behind the camera (z <= 0) have coordinates without meaning; callers test the depth.
    """
    in_camera = transform_points(cameras.camera_from_world, points[:, None])
    z = in_camera[..., 2]
    homogeneous = in_camera @ cameras.intrinsics.mT
    safe_z = torch.where(z.abs() < 1e-12, torch.full_like(z, 1e-12), z)
    return homogeneous[..., :2] / safe_z[..., None], z
