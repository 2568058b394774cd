"""Surfaces on which the views of a context agree: depth by plane sweep, Gaussians by colour."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from nas3r.consistency import Surfaces, compare_views
from nas3r.consistency.photo_consistency import color_agreement
from nas3r.consistency.plane_sweep import sweep_factor
from nas3r.consistency.reprojection import nearest_views, reproject
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, make_pose, project, so3_exp, unproject_depth
from nas3r.matching.features import PatchProjections


def _cameras(views: int, scenes: int = 1) -> Cameras:
    turn = so3_exp(0.1 * torch.randn(scenes, views, 3))
    poses = make_pose(turn, 0.2 * torch.randn(scenes, views, 3))
    k = torch.tensor([[1.1, 0, 0.5], [0, 1.3, 0.48], [0, 0, 1]]).expand(scenes, views, 3, 3)
    return Cameras(poses, k)


def _world(views: int = 4, size: int = 64):
    """Images, true depth and true cameras of some views of a generated scene."""
    scene = SyntheticScenes(6, SyntheticConfig(frames=16), length=1)[0]
    read = scene.read([5 * i for i in range(views)], size, size)
    assert read.depth is not None
    depth = read.depth[None]
    far = depth.max()
    return read.images[None], torch.where(depth > 0, depth, far), read.cameras


def _bilinear(maps: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Values of maps [c, h, w] at normalised coordinates, the border repeated."""
    h, w = maps.shape[-2:]
    col, row = min(max(x * w - 0.5, 0), w - 1), min(max(y * h - 0.5, 0), h - 1)
    c0, r0 = math.floor(col), math.floor(row)
    c1, r1 = min(c0 + 1, w - 1), min(r0 + 1, h - 1)
    a, b = col - c0, row - r0
    top = (1 - a) * maps[:, r0, c0] + a * maps[:, r0, c1]
    return (1 - b) * top + b * ((1 - a) * maps[:, r1, c0] + a * maps[:, r1, c1])


def test_points_are_seen_where_projection_says():
    cameras, others = _cameras(3), torch.tensor([[2, 0, 1]])
    points = torch.randn(1, 3, 20, 3) + torch.tensor([0.0, 0, 2])
    at = reproject(points, cameras, others)
    for view, other in enumerate([2, 0, 1]):
        xy, z = project(cameras, points[:, view])
        front = z[0, other] > 0.1
        torch.testing.assert_close(at.depth[0, view], z[0, other])
        torch.testing.assert_close(at.xy[0, view][front], xy[0, other][front])
        inside = front & (xy[0, other] > 0).all(-1) & (xy[0, other] < 1).all(-1)
        assert (at.inside[0, view][front] == inside[front]).all()
    assert not at.inside[at.depth < 0].any()


def test_nearest_views_come_first_and_never_the_view_itself():
    cameras = _cameras(5)
    ranked = torch.stack(list(nearest_views(cameras, 3)), -1)[0]
    assert ranked.shape == (5, 3)
    for view in range(5):
        apart = torch.linalg.vector_norm(cameras.centers[0] - cameras.centers[0, view], dim=-1)
        assert ranked[view].tolist() == apart.argsort()[1:4].tolist()


def test_sweep_factor_against_a_loop():
    torch.manual_seed(0)
    scenes, views, h, w = 2, 3, 8, 12
    cameras = _cameras(views, scenes=scenes)
    depth = 1 + torch.rand(scenes, views, h, w)
    features = F.normalize(torch.randn(scenes, views, 4, h, w), dim=2)
    factor = sweep_factor(features, depth, cameras)
    for b in range(scenes):
        own = Cameras(cameras.world_from_camera[b : b + 1], cameras.intrinsics[b : b + 1])
        expected = _sweep_of_one_scene(features[b], depth[b], own)
        torch.testing.assert_close(factor[b], expected, atol=1e-5, rtol=1e-5)  # float32 sums


def _sweep_of_one_scene(features: torch.Tensor, depth: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    views, h, w = depth.shape
    queries, start = F.avg_pool2d(features, 2), F.avg_pool2d(depth[:, None], 2)
    shifts = [0.06 * i for i in range(-8, 9)]
    likeness = torch.zeros(len(shifts), views, h // 2, w // 2)
    for (i, shift), view in itertools.product(enumerate(shifts), range(views)):
        own = Cameras(cameras.world_from_camera[:, [view]], cameras.intrinsics[:, [view]])
        points = unproject_depth(own, start[view : view + 1] * math.exp(shift)).flatten(1, 3)
        xy, z = project(cameras, points)
        for n in range(points.shape[1]):
            total, seen = 0.0, 0.5
            for other in set(range(views)) - {view}:
                x, y = xy[0, other, n].tolist()
                if z[0, other, n] > 0 and 0 < x < 1 and 0 < y < 1:
                    total += float(_bilinear(features[other], x, y) @ queries[view].flatten(1)[:, n])
                    seen += 1
            likeness[i, view].view(-1)[n] = total / seen
    smooth = _blur(h // 2) @ likeness @ _blur(w // 2).T
    cost = (torch.tensor(shifts) / shifts[-1]).square()
    chosen = (20 * smooth - cost[:, None, None, None]).softmax(0)
    moved = (chosen * torch.tensor(shifts)[:, None, None, None]).sum(0)
    return F.interpolate(moved[None], size=(h, w), mode="bilinear")[0].exp()


def _blur(n: int) -> torch.Tensor:
    """Gaussian weights [n, n] of two pixels, of 13 in all, with nothing outside."""
    apart = torch.arange(n)[:, None] - torch.arange(n)
    weights = torch.exp(-0.5 * (apart / 2.0).square()) * (apart.abs() <= 6)
    return weights / torch.exp(-0.5 * (torch.arange(-6, 7) / 2.0).square()).sum()


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_depth_returns_to_where_views_look_alike(wrong):
    images, depth, cameras = _world()
    features = PatchProjections(((5, 1), (7, 1)))(images[0])[None]
    factor = sweep_factor(features, wrong * depth, cameras)
    off = (factor * wrong).log().abs()
    assert off.median() < 0.3 * abs(math.log(wrong))
    kept = sweep_factor(features, depth, cameras).log().abs()
    assert kept.median() < 0.03  # half a step


def test_color_agreement_against_a_loop():
    torch.manual_seed(1)
    scenes, views, h, w = 2, 3, 6, 8
    cameras = _cameras(views, scenes=scenes)
    images, depth = torch.rand(scenes, views, 3, h, w), 1 + torch.rand(scenes, views, h, w)
    found = color_agreement(images, depth, cameras)
    points = unproject_depth(cameras, depth)
    for b, view in itertools.product(range(scenes), range(views)):
        xy, z = project(cameras, points[:, view].flatten(1, 2))
        for n in range(h * w):
            agree = seen = 0.5
            for other in set(range(views)) - {view}:
                x, y = xy[b, other, n].tolist()
                if not (z[b, other, n] > 0 and 0 < x < 1 and 0 < y < 1):
                    continue
                if z[b, other, n] < 1.1 * _bilinear(depth[b, other][None], x, y):
                    off = _bilinear(images[b, other], x, y) - images[b, view].flatten(1)[:, n]
                    agree += math.exp(-float(off.square().mean()) / (2 * 0.1**2))
                    seen += 1
            assert float(found[b, view].flatten()[n]) == pytest.approx(agree / seen, abs=1e-5)


def test_views_agree_on_true_depth_and_doubt_wrong_depth():
    images, depth, cameras = _world()
    true = color_agreement(images, depth, cameras)
    wrong = color_agreement(images, 0.7 * depth, cameras)
    assert true.mean() > 0.8
    assert wrong.mean() < true.mean() - 0.1


def test_what_only_its_own_view_sees_keeps_its_opacity():
    images, depth, cameras = _world()
    turned = cameras.world_from_camera.clone()
    turned[0, 1:, :3, :3] = turned[0, :1, :3, :3] @ so3_exp(torch.tensor([0.0, math.pi, 0.0]))
    away = Cameras(turned, cameras.intrinsics)
    assert (color_agreement(images, depth, away)[0, 0] == 1).all()


def test_more_views_than_a_view_is_compared_with():
    torch.manual_seed(0)
    cameras, depth = _cameras(11), torch.ones(1, 11, 8, 8)
    features = F.normalize(torch.randn(1, 11, 4, 8, 8), dim=2)
    ranked = torch.stack(list(nearest_views(cameras, 8)), -1)[0, 0]
    seen = torch.cat([torch.zeros(1, dtype=torch.long), ranked])
    fewer = Cameras(cameras.world_from_camera[:, seen], cameras.intrinsics[:, seen])
    every = sweep_factor(features, depth, cameras)[:, 0]
    torch.testing.assert_close(every, sweep_factor(features[:, seen], depth[:, seen], fewer)[:, 0])


def _surfaces(images: torch.Tensor, depth: torch.Tensor, cameras: Cameras, side: int = 1) -> Surfaces:
    """Round Gaussians for square cells of pixels, and as many behind each view."""
    cells = F.avg_pool2d(depth, side)
    means = unproject_depth(cameras, cells).flatten(1, 3)
    colors = F.avg_pool2d(images.flatten(0, 1), side).flatten(2).mT.reshape(1, -1, 3)
    gaussians = Gaussians.spheres(means, 0.01 * torch.ones_like(means[..., 0]), colors, 0.8)
    far = unproject_depth(cameras, torch.full_like(F.avg_pool2d(depth, 8), 5.0)).flatten(1, 3)
    behind = Gaussians.spheres(far, 0.1 * torch.ones_like(far[..., 0]), torch.zeros_like(far), 0.9)
    return Surfaces(depth, gaussians, behind)


@pytest.mark.parametrize("side", [1, 2])
def test_gaussians_follow_depth_along_their_rays(side):
    images, depth, cameras = _world()
    before = _surfaces(images, 1.2 * depth, cameras, side)
    after = compare_views(images, cameras, before)
    assert (after.depth.log() - depth.log()).abs().median() < 0.5 * math.log(1.2)
    views, cells = depth.shape[1], before.gaussians.num_gaussians // depth.shape[1]
    for view in range(views):
        own = slice(view * cells, (view + 1) * cells)
        xy, z = project(cameras.views([view]), before.gaussians.means[:, own])
        moved_xy, moved_z = project(cameras.views([view]), after.gaussians.means[:, own])
        torch.testing.assert_close(moved_xy, xy, atol=1e-4, rtol=0)
        expected = F.avg_pool2d(after.depth[:, view], side).flatten(1)
        torch.testing.assert_close(moved_z[:, 0], expected, atol=0, rtol=1e-4)
        ratio = (moved_z / z)[:, 0, :, None]
        torch.testing.assert_close(
            after.gaussians.scales[:, own], ratio * before.gaussians.scales[:, own], atol=0, rtol=1e-4
        )


def test_gaussians_count_as_far_as_views_agree_and_the_backdrop_moves_along():
    images, depth, cameras = _world()
    before = _surfaces(images, 1.2 * depth, cameras)
    after = compare_views(images, cameras, before)
    agreed = color_agreement(images, after.depth, cameras)
    torch.testing.assert_close(after.gaussians.opacities, agreed.flatten(1) * 0.8, atol=0, rtol=1e-6)
    assert agreed.mean() < 0.99
    assert before.backdrop is not None
    assert after.backdrop is not None
    assert torch.equal(after.backdrop.opacities, before.backdrop.opacities)
    ratio = [d.flatten(2).quantile(0.95, -1) for d in (after.depth, before.depth)]
    count = before.backdrop.num_gaussians // depth.shape[1]
    grown = (ratio[0] / ratio[1]).repeat_interleave(count, 1)[..., None]
    torch.testing.assert_close(after.backdrop.scales, grown * before.backdrop.scales)


def test_gradients_pass_through_compared_views():
    images, depth, cameras = _world()
    depth = depth.requires_grad_()
    surfaces = _surfaces(images, depth, cameras)
    after = compare_views(images, cameras, surfaces)
    (after.gaussians.means.square().sum() + after.depth.log().square().sum()).backward()
    assert depth.grad is not None
    assert depth.grad.isfinite().all()
    assert depth.grad.abs().min() > 0
