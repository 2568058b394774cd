"""Rigid motions as 4x4 matrices."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.rotation import hat, rodrigues_coefficients, so3_exp, so3_log


def make_pose(
    rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 4 4"]:
    """4x4 matrices from rotations and translations."""
    top = torch.cat([rotation, translation[..., None]], -1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 0, 3] = 1
    return torch.cat([top, bottom], -2)


def invert_pose(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Inverse of rigid motions: (R | t) -> (R^T | -R^T t), exact and cheaper than a general inverse."""
    rotation = pose[..., :3, :3].mT
    return make_pose(rotation, -(rotation @ pose[..., :3, 3:]).squeeze(-1))


def relative_to_first(world_from_camera: Float[Tensor, "*b v 4 4"]) -> Float[Tensor, "*b v 4 4"]:
    """Poses in the frame of the first camera, whose pose becomes exactly the identity."""
    relative = invert_pose(world_from_camera[..., :1, :, :]) @ world_from_camera[..., 1:, :, :]
    eye = torch.eye(4, dtype=relative.dtype, device=relative.device)
    return torch.cat([eye.expand_as(world_from_camera[..., :1, :, :]), relative], -3)


def transform_points(
    pose: Float[Tensor, "*b 4 4"], points: Float[Tensor, "*b n 3"]
) -> Float[Tensor, "*b n 3"]:
    """Points mapped by rigid motions (`pose` broadcasts against the points' batch)."""
    return points @ pose[..., :3, :3].mT + pose[..., None, :3, 3]


def se3_exp(twist: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 4 4"]:
    """Rigid motions of twists (translation part first, then rotation vector).

    Source: Barfoot, "State Estimation for Robotics", eq. 7.85 (left Jacobian of SO(3)).
    """
    rho, phi = twist[..., :3], twist[..., 3:]
    _, b, c = rodrigues_coefficients((phi**2).sum(-1))
    k = hat(phi)
    eye = torch.eye(3, dtype=k.dtype, device=k.device)
    jacobian = eye + b[..., None, None] * k + c[..., None, None] * (k @ k)
    return make_pose(so3_exp(phi), (jacobian @ rho[..., None]).squeeze(-1))


def se3_log(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 6"]:
    """Twists of rigid motions; inverse of `se3_exp` for rotations of less than half a turn."""
    phi = so3_log(pose[..., :3, :3])
    _, b, c = rodrigues_coefficients((phi**2).sum(-1))
    k = hat(phi)
    eye = torch.eye(3, dtype=k.dtype, device=k.device)
    jacobian = eye + b[..., None, None] * k + c[..., None, None] * (k @ k)
    rho = torch.linalg.solve(jacobian, pose[..., :3, 3:]).squeeze(-1)
    return torch.cat([rho, phi], -1)
