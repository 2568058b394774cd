"""Gaussians that ride on cameras, and coarser sets of them."""

from dataclasses import replace

import pytest
import torch
from refine_worlds import make_world
from torch import Tensor
from torch.autograd import gradcheck

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, matrix_from_quat, project, se3_exp, so3_exp
from nas3r.losses.photometric import image_psnr
from nas3r.refine import lift_depth
from nas3r.refine.anchored import AnchoredGaussians, anchor, multiply_quats, nearest_views
from nas3r.render import render

VIEW = torch.tensor([0, 1, 1, 0, 1])


def small_set() -> tuple[Gaussians, Cameras]:
    """Five Gaussians in front of two cameras, float64."""
    means = torch.randn(1, 5, 3, dtype=torch.float64) * 0.5 + torch.tensor([0.0, 0, 4]).double()
    gaussians = Gaussians(
        means,
        torch.nn.functional.normalize(torch.randn(1, 5, 4, dtype=torch.float64), dim=-1),
        0.1 + torch.rand(1, 5, 3, dtype=torch.float64),
        torch.rand(1, 5, dtype=torch.float64),
        torch.randn(1, 5, 4, 3, dtype=torch.float64),
    )
    poses = se3_exp(0.2 * torch.randn(1, 2, 6, dtype=torch.float64))
    k = torch.tensor([[1.2, 0.05, 0.45], [0, 1.4, 0.55], [0, 0, 1]], dtype=torch.float64).repeat(1, 2, 1, 1)
    return gaussians, Cameras(poses, k)


def moved(cameras: Cameras) -> Cameras:
    poses = cameras.world_from_camera @ se3_exp(0.1 * torch.randn(1, 2, 6, dtype=torch.float64))
    k = cameras.intrinsics.clone()
    k[..., :2, :2] *= 1.1
    return Cameras(poses, k)


def test_nothing_moves_when_cameras_do_not() -> None:
    gaussians, cameras = small_set()
    same = anchor(gaussians, cameras, VIEW).follow(cameras, torch.zeros(5).double())
    for name in Gaussians.__dataclass_fields__:
        torch.testing.assert_close(getattr(same, name), getattr(gaussians, name))


def test_gaussians_keep_their_pixel_and_size_in_it() -> None:
    gaussians, cameras = small_set()
    after = moved(cameras)
    change = 0.3 * torch.randn(5, dtype=torch.float64)
    followed = anchor(gaussians, cameras, VIEW).follow(after, change)
    rows = torch.arange(5)
    xy_before, z_before = (x[0, VIEW, rows] for x in project(cameras, gaussians.means))
    xy_after, z_after = (x[0, VIEW, rows] for x in project(after, followed.means))
    torch.testing.assert_close(xy_after, xy_before)
    torch.testing.assert_close(z_after, z_before * change.exp())
    # Size over depth times focal length is the size in the image.
    torch.testing.assert_close(followed.scales * 1.1 / z_after[:, None], gaussians.scales / z_before[:, None])
    in_camera_before = cameras.world_from_camera[0, VIEW, :3, :3].mT @ matrix_from_quat(gaussians.quats[0])
    in_camera_after = after.world_from_camera[0, VIEW, :3, :3].mT @ matrix_from_quat(followed.quats[0])
    torch.testing.assert_close(in_camera_after, in_camera_before)


def test_gradients_of_following() -> None:
    gaussians, cameras = small_set()
    anchored = anchor(gaussians, cameras, VIEW)
    after = moved(cameras)

    def follow(twist: Tensor, k: Tensor, change: Tensor) -> tuple[Tensor, ...]:
        g = anchored.follow(Cameras(after.world_from_camera @ se3_exp(twist), k), change)
        return g.means, g.quats, g.scales

    twist = torch.zeros(1, 2, 6, dtype=torch.float64, requires_grad=True)
    change = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(follow, (twist, after.intrinsics.clone().requires_grad_(), change))


def test_quaternion_product_is_the_product_of_rotations() -> None:
    a, b = torch.randn(2, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(
        matrix_from_quat(multiply_quats(a, b)), matrix_from_quat(a) @ matrix_from_quat(b)
    )


def lifted(size: int = 48) -> tuple[AnchoredGaussians, Tensor]:
    world = make_world(views=3, size=size)
    gaussians, view = lift_depth(world.images, world.depth, world.cameras)
    return anchor(gaussians, world.cameras, view), world.images


def test_coarsening_keeps_the_picture() -> None:
    """At the coarse size, the coarse set renders like the full one: merging loses what pixels do not show."""
    anchored, _ = lifted()
    coarse = anchored.coarsened(12, 12)
    assert coarse.gaussians.num_gaussians < anchored.gaussians.num_gaussians / 6  # 16, but for depth steps
    full, merged = (render(a.gaussians, anchored.cameras, 12, 12) for a in (anchored, coarse))
    assert image_psnr(merged.color, full.color).min() > 26  # measured 29 to 31
    assert (merged.alpha - full.alpha).abs().mean() < 0.05


def test_coarsening_to_a_finer_grid_changes_nothing() -> None:
    anchored, _ = lifted(24)
    fine = anchored.coarsened(96, 96)
    assert fine.gaussians.num_gaussians == anchored.gaussians.num_gaussians
    key = torch.argsort(anchored.gaussians.means[0, :, 0])
    fine_key = torch.argsort(fine.gaussians.means[0, :, 0])
    torch.testing.assert_close(fine.gaussians.scales[:, fine_key], anchored.gaussians.scales[:, key])
    torch.testing.assert_close(fine.gaussians.opacities[:, fine_key], anchored.gaussians.opacities[:, key])


def test_layers_in_one_place_are_not_blown_up() -> None:
    """Ten equal Gaussians merge into one that is opaque, not ten times as large."""
    anchored, _ = lifted(24)
    one = anchored.select(torch.tensor([300]))
    ten = anchored.select(torch.full((10,), 300))
    single, merged = one.coarsened(24, 24).gaussians, ten.coarsened(24, 24).gaussians
    assert merged.num_gaussians == 1
    torch.testing.assert_close(merged.scales, single.scales)
    assert merged.opacities > single.opacities


def test_anchors_by_nearness() -> None:
    gaussians, cameras = small_set()
    gaussians = replace(gaussians, means=torch.cat([gaussians.means[:, :4], -gaussians.means[:, 4:]], 1))
    nearest = nearest_views(gaussians, cameras, [0, 1])
    assert nearest[4] == -1  # behind both
    xy, z = project(cameras, gaussians.means[:, :4])
    seen = ((xy > 0) & (xy < 1)).all(-1)
    expected = torch.where(seen, z, torch.inf)[0].argmin(0)
    assert torch.equal(nearest[:4], expected)
    assert set(nearest_views(gaussians, cameras, [1]).tolist()) <= {1, -1}


def test_gaussians_behind_their_camera_are_refused() -> None:
    gaussians, cameras = small_set()
    flipped = Cameras(
        cameras.world_from_camera @ se3_exp(torch.tensor([0, 0, 0, 0, torch.pi, 0]).double()),
        cameras.intrinsics,
    )
    with pytest.raises(ValueError, match="5 Gaussians lie behind the camera"):
        anchor(gaussians, flipped, VIEW)


def test_lifted_depth_renders_its_photo() -> None:
    world = make_world(views=2, size=48)
    gaussians, view = lift_depth(world.images[:1], world.depth[:1], world.cameras.views([0]))
    assert view.tolist() == [0] * (48 * 48)
    rendering = render(gaussians, world.cameras.views([0]), 48, 48)
    inner = (..., slice(2, -2), slice(2, -2))  # the border lacks neighbours from beyond the image
    assert image_psnr(rendering.color[0, 0][inner], world.images[0][inner]) > 28
    assert (rendering.depth[0, 0] / world.depth[0] - 1)[inner].abs().median() < 0.01


def test_unknown_depth_is_left_out_and_shapes_are_checked() -> None:
    world = make_world(views=2, size=16)
    depth = world.depth.clone()
    depth[0, :8] = 0
    gaussians, view = lift_depth(world.images, depth, world.cameras)
    assert gaussians.num_gaussians == 2 * 256 - 128
    assert (view == 0).sum() == 128
    with pytest.raises(ValueError, match="lift_depth: expected depth"):
        lift_depth(world.images, depth[:1], world.cameras)


def test_follow_turns_with_a_known_rotation() -> None:
    gaussians, cameras = small_set()
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = so3_exp(torch.tensor([0.0, 0.3, 0.0]).double())
    followed = anchor(gaussians, cameras, VIEW).follow(
        Cameras(turn @ cameras.world_from_camera, cameras.intrinsics), torch.zeros(5).double()
    )
    torch.testing.assert_close(followed.means[0], gaussians.means[0] @ turn[:3, :3].T)
