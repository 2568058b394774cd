"""Rigid motions: group laws, exp/log round trips, gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from nas3r.geometry import (
    invert_pose,
    make_pose,
    relative_to_first,
    se3_exp,
    se3_log,
    so3_exp,
    transform_points,
)
from nas3r.geometry.rotation import hat

seeds = st.integers(0, 2**31 - 1)
# Rotation angles up to just under a half turn, with the hard ones named.
angles = st.one_of(
    st.sampled_from([0.0, 1e-10, 1e-5, 0.01, 0.5, math.pi - 1e-6]), st.floats(0, math.pi - 1e-4)
)


def random_poses(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    twist = torch.randn(*shape, 6, dtype=torch.float64, generator=generator)
    return make_pose(so3_exp(twist[..., 3:]), twist[..., :3])


@given(seeds)
def test_group_laws(seed: int) -> None:
    a, b, c = random_poses(seed, 3)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(a @ invert_pose(a), eye, rtol=0, atol=1e-14)
    torch.testing.assert_close(invert_pose(a) @ a, eye, rtol=0, atol=1e-14)
    torch.testing.assert_close((a @ b) @ c, a @ (b @ c), rtol=0, atol=1e-13)
    torch.testing.assert_close(invert_pose(a @ b), invert_pose(b) @ invert_pose(a), rtol=0, atol=1e-13)


@given(seeds, angles)
def test_exp_log_round_trip(seed: int, angle: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.randn(3, dtype=torch.float64, generator=generator)
    rho = torch.randn(3, dtype=torch.float64, generator=generator)
    twist = torch.cat([rho, axis / axis.norm() * angle])
    # The left Jacobian's condition number is at most pi / 2 below a half turn.
    torch.testing.assert_close(se3_log(se3_exp(twist)), twist, rtol=0, atol=1e-12)


@given(seeds)
def test_log_exp_round_trip(seed: int) -> None:
    poses = random_poses(seed, 5)
    torch.testing.assert_close(se3_exp(se3_log(poses)), poses, rtol=0, atol=1e-12)


def test_exp_agrees_with_the_matrix_exponential() -> None:
    twist = torch.randn(50, 6, dtype=torch.float64) * torch.logspace(-6, 0.3, 50)[:, None]
    generator = torch.zeros(50, 4, 4, dtype=torch.float64)
    generator[:, :3, :3] = hat(twist[:, 3:])
    generator[:, :3, 3] = twist[:, :3]
    torch.testing.assert_close(se3_exp(twist), torch.linalg.matrix_exp(generator), rtol=0, atol=1e-12)


def test_one_parameter_subgroup() -> None:
    twist = torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(se3_exp(0.3 * twist) @ se3_exp(0.7 * twist), se3_exp(twist))


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-3, 0.3, 1.0])
def test_exp_and_log_gradients(scale: float) -> None:
    twist = (scale * torch.randn(4, 6, dtype=torch.float64)).requires_grad_()
    assert gradcheck(se3_exp, twist)
    assert gradcheck(lambda t: se3_log(se3_exp(t)), twist)


def test_gradients_of_matrix_functions() -> None:
    pose = random_poses(0, 2, 3).requires_grad_()
    points = torch.randn(2, 3, 5, 3, dtype=torch.float64, requires_grad=True)
    rotation = random_poses(1, 2)[..., :3, :3].clone().requires_grad_()
    translation = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(make_pose, (rotation, translation))
    assert gradcheck(invert_pose, pose)
    assert gradcheck(relative_to_first, pose)
    assert gradcheck(transform_points, (pose, points))


def test_relative_to_first_fixes_the_gauge() -> None:
    poses = random_poses(3, 2, 4)
    relative = relative_to_first(poses)
    assert torch.equal(relative[:, 0], torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    torch.testing.assert_close(poses[:, :1] @ relative, poses)
    moved = relative_to_first(random_poses(4, 1, 1) @ poses)
    torch.testing.assert_close(moved, relative)


def test_transform_points_is_matrix_times_homogeneous_point() -> None:
    poses = random_poses(5, 2, 3)
    points = torch.randn(2, 1, 7, 3, dtype=torch.float64)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    expected = (poses[..., None, :, :] @ homogeneous[..., None]).squeeze(-1)[..., :3]
    torch.testing.assert_close(transform_points(poses, points), expected)


def test_make_pose_broadcasts_over_batches() -> None:
    pose = make_pose(torch.eye(3).expand(2, 5, 3, 3), torch.randn(2, 5, 3))
    assert pose.shape == (2, 5, 4, 4)
    assert torch.equal(pose[..., 3, :], torch.tensor([0.0, 0, 0, 1]).expand(2, 5, 4))
