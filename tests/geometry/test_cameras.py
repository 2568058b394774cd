"""Cameras, projection and unprojection."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from nas3r.geometry import Cameras, pixel_grid, project, se3_exp, unproject, unproject_depth
from nas3r.geometry.projection import camera_rays

seeds = st.integers(0, 2**31 - 1)


def random_cameras(seed: int, b: int = 1, v: int = 2) -> Cameras:
    """Different focals in x and y, skew, principal point off the centre."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    intrinsics = torch.zeros(b, v, 3, 3, dtype=torch.float64)
    intrinsics[..., 0, 0] = 0.4 + 2 * rand(b, v)
    intrinsics[..., 1, 1] = 0.4 + 2 * rand(b, v)
    intrinsics[..., 0, 1] = 0.4 * (rand(b, v) - 0.5)
    intrinsics[..., :2, 2] = 0.2 + 0.6 * rand(b, v, 2)
    intrinsics[..., 2, 2] = 1
    return Cameras(se3_exp(4 * (rand(b, v, 6) - 0.5)), intrinsics)


@given(seeds)
def test_unproject_then_project_is_the_identity(seed: int) -> None:
    cameras = random_cameras(seed, 2, 3)
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(2, 3, 7, 2, dtype=torch.float64, generator=generator)
    depth = 0.1 + 10 * torch.rand(2, 3, 7, dtype=torch.float64, generator=generator)
    points = unproject(cameras, xy, depth)
    for view in range(3):
        back, z = project(cameras.views([view]), points[:, view])
        # A few roundings, amplified by focal / depth <= 24.
        torch.testing.assert_close(back[:, 0], xy[:, view], rtol=0, atol=1e-12)
        torch.testing.assert_close(z[:, 0], depth[:, view], rtol=0, atol=1e-12)


@given(seeds)
def test_project_then_unproject_is_the_identity(seed: int) -> None:
    cameras = random_cameras(seed)
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(1, 20, 3, dtype=torch.float64, generator=generator)
    xy, z = project(cameras, points)
    away = z.abs() > 1e-2
    back = unproject(cameras, xy, z)
    torch.testing.assert_close(
        back[away], points[:, None].expand_as(back)[away], rtol=0, atol=1e-11
    )  # 1e-15 / 1e-2^2


def test_project_is_the_textbook_formula() -> None:
    cameras = random_cameras(0)
    points = torch.randn(1, 5, 3, dtype=torch.float64)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    projection = cameras.intrinsics @ cameras.camera_from_world[..., :3, :]
    image = torch.einsum("bvij,bnj->bvni", projection, homogeneous)
    xy, z = project(cameras, points)
    torch.testing.assert_close(xy, image[..., :2] / image[..., 2:])
    torch.testing.assert_close(z, image[..., 2])


def test_gradients_reach_points_poses_and_intrinsics() -> None:
    cameras = random_cameras(1)
    pose = cameras.world_from_camera.clone().requires_grad_()
    k = cameras.intrinsics.clone().requires_grad_()
    points = (torch.randn(1, 4, 3, dtype=torch.float64) * 2).requires_grad_()
    xy = torch.rand(1, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    depth = (1 + torch.rand(1, 2, 4, dtype=torch.float64)).requires_grad_()
    maps = (1 + torch.rand(1, 2, 2, 3, dtype=torch.float64)).requires_grad_()
    assert gradcheck(lambda p, i, x: project(Cameras(p, i), x), (pose, k, points))
    assert gradcheck(lambda p, i, x, d: unproject(Cameras(p, i), x, d), (pose, k, xy, depth))
    assert gradcheck(lambda p, i, d: unproject_depth(Cameras(p, i), d), (pose, k, maps))
    assert gradcheck(camera_rays, (k, xy))


def test_points_on_the_camera_plane_stay_finite() -> None:
    cameras = Cameras(torch.eye(4).expand(1, 1, 4, 4), torch.eye(3).expand(1, 1, 3, 3))
    points = torch.tensor([[[0.0, 0, 0], [1, 1, 0], [1, 1, -1]]], requires_grad=True)
    xy, z = project(cameras, points)
    (grad,) = torch.autograd.grad(z.sum(), points, retain_graph=True)
    assert torch.equal(grad, torch.tensor([0.0, 0, 1]).expand(1, 3, 3))
    (grad,) = torch.autograd.grad(xy.sum(), points)
    assert xy.isfinite().all()
    assert grad.isfinite().all()
    assert torch.equal(xy[0, 0, 2], torch.tensor([-1.0, -1]))  # (1, 1) at z = -1: no clamp there
    assert torch.equal(grad[0, 2], torch.tensor([-1.0, -1, -2]))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_depth_maps_unproject_at_their_pixels(offset: float) -> None:
    cameras = random_cameras(2, 2, 3)
    depth = 1 + torch.rand(2, 3, 4, 6, dtype=torch.float64)
    points = unproject_depth(cameras, depth, pixel_offset=offset)
    assert points.shape == (2, 3, 4, 6, 3)
    xy, z = project(cameras.views([1]), points[:, 1].reshape(2, 24, 3))
    i, j = 3, 1
    torch.testing.assert_close(
        xy[0, 0, i * 6 + j], torch.tensor([(j + offset) / 6, (i + offset) / 4], dtype=torch.float64)
    )
    torch.testing.assert_close(z[:, 0].reshape(2, 4, 6), depth[:, 1])


def test_pixel_grid_holds_centres() -> None:
    grid = pixel_grid(2, 4)
    torch.testing.assert_close(grid[1, 2], torch.tensor([2.5 / 4, 1.5 / 2]))
    assert pixel_grid(2, 4, pixel_offset=0.0)[0, 0].tolist() == [0, 0]


def test_pixel_intrinsics_round_trip() -> None:
    cameras = random_cameras(3)
    pixels = cameras.pixel_intrinsics(640, 360)
    torch.testing.assert_close(pixels[..., 0, :], cameras.intrinsics[..., 0, :] * 640)
    torch.testing.assert_close(pixels[..., 1, :], cameras.intrinsics[..., 1, :] * 360)
    assert (pixels[..., 2, 2] == 1).all()
    back = Cameras.from_pixels(cameras.world_from_camera, pixels, 640, 360)
    torch.testing.assert_close(back.intrinsics, cameras.intrinsics)


def test_field_of_view() -> None:
    k = torch.diag(torch.tensor([0.5, 0.5 / math.tan(math.radians(30)), 1.0])).expand(1, 1, 3, 3)
    degrees = torch.rad2deg(Cameras(torch.eye(4).expand(1, 1, 4, 4), k).field_of_view)
    torch.testing.assert_close(degrees, torch.tensor([[[90.0, 60.0]]]))


def test_views_and_cat_and_conversions() -> None:
    cameras = random_cameras(4, 2, 5)
    some = cameras.views([3, 0])
    assert torch.equal(some.world_from_camera, cameras.world_from_camera[:, [3, 0]])
    joined = Cameras.cat([cameras.views(slice(0, 2)), cameras.views(slice(2, None))])
    assert torch.equal(joined.intrinsics, cameras.intrinsics)
    assert joined.num_views == 5
    assert cameras.to(torch.float32).intrinsics.dtype == torch.float32
    assert torch.equal(cameras.centers, cameras.world_from_camera[..., :3, 3])
    leaf = Cameras(cameras.world_from_camera.clone().requires_grad_(), cameras.intrinsics)
    assert not leaf.detach().world_from_camera.requires_grad


@pytest.mark.parametrize(
    ("pose", "k", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 3, 3), r"world_from_camera: expected shape \[b, v, 4, 4\]"),
        (torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 3), "world_from_camera"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 3, 3), r"intrinsics: expected shape \[1, 2, 3, 3\]"),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 3, 3).double(), "expected the same"),
    ],
)
def test_wrong_cameras_are_named(pose: Tensor, k: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cameras(pose, k)
