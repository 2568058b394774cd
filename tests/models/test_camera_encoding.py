"""Encodings of cameras: what they start at, and what the network can do to their gradients."""

import pytest
import torch
from torch import Tensor

from nas3r.geometry import so3_log
from nas3r.models.heads.camera import CameraConfig, decode_poses, initial_encoding

_ROTATIONS = ("quat_wxyz", "quat_xyzw", "rot6d", "vector")


@pytest.mark.parametrize("rotation", _ROTATIONS)
def test_the_first_prediction_is_the_identity(rotation: str) -> None:
    config = CameraConfig(rotation=rotation)  # pyright: ignore[reportArgumentType]
    encoding = torch.tensor(initial_encoding(config)).expand(1, 2, -1)
    torch.testing.assert_close(decode_poses(config, encoding), torch.eye(4).expand(1, 2, 4, 4))


@pytest.mark.parametrize("rotation", _ROTATIONS)
def test_rotations_have_a_gradient_at_the_identity(rotation: str) -> None:
    config = CameraConfig(rotation=rotation)  # pyright: ignore[reportArgumentType]
    encoding = torch.tensor(initial_encoding(config), requires_grad=True)
    loss = _turned(config, encoding)[..., 1]
    (gradient,) = torch.autograd.grad(loss, encoding)
    assert gradient.isfinite().all()
    assert gradient.norm() > 0.5


def test_a_vector_is_axis_times_angle() -> None:
    config = CameraConfig(rotation="vector", focal=None)
    vector = torch.tensor([0.3, -0.5, 0.2])
    encoding = torch.cat([torch.zeros(3), vector]).expand(1, 1, -1)
    torch.testing.assert_close(so3_log(decode_poses(config, encoding)[0, 0, :3, :3]), vector)


def test_only_quaternions_can_be_lengthened() -> None:
    """Three times the real part shrinks the gradient of a quaternion; a vector has nothing like it."""
    quaternion = CameraConfig(focal=None)
    encoding = torch.tensor(initial_encoding(quaternion))
    long = (encoding * torch.tensor([1, 1, 1, 3, 1, 1, 1])).requires_grad_()
    short = encoding.requires_grad_()
    (of_long,) = torch.autograd.grad(_turned(quaternion, long)[..., 1], long)
    (of_short,) = torch.autograd.grad(_turned(quaternion, short)[..., 1], short)
    torch.testing.assert_close(of_long.norm() * 3, of_short.norm())
    assert len(initial_encoding(CameraConfig(rotation="vector", focal=None))) == 6


def _turned(config: CameraConfig, encoding: Tensor) -> Tensor:
    """Rotation vector of a decoded pose, [3]; near the identity."""
    rotation = decode_poses(config, encoding.expand(1, 1, -1))[0, 0, :3, :3]
    return (
        torch.stack(
            [
                rotation[2, 1] - rotation[1, 2],
                rotation[0, 2] - rotation[2, 0],
                rotation[1, 0] - rotation[0, 1],
            ]
        )
        / 2
    )
