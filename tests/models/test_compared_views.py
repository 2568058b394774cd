"""Surfaces on which the views of a context agree: depth by plane sweep, Gaussians by colour."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import Cameras, make_pose, project, so3_exp, unproject_depth
from nas3r.models import NAS3R, presets
from nas3r.models.patch_features import PatchProjections
from nas3r.models.photo_consistency import color_agreement
from nas3r.models.plane_sweep import sweep_factor
from nas3r.models.reprojection import nearest_views, reproject


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


def _models() -> tuple[NAS3R, NAS3R]:
    """The same network that compares views, and that does not."""
    torch.manual_seed(0)
    compares = NAS3R(presets.get("tiny")).eval()
    plain = NAS3R(replace(compares.config, compare_views=False)).eval()
    plain.load_state_dict(compares.state_dict())
    return compares, plain


@torch.no_grad()
@pytest.mark.parametrize("count", [2, 3])
def test_comparing_moves_depth_and_doubts_gaussians(count):
    compares, plain = _models()
    images, _, _ = _world()
    context, target = images[:, :count], images[:, count : count + 1]
    found, without = compares(context, target), plain(context, target)
    assert torch.equal(found.cameras.world_from_camera, without.cameras.world_from_camera)
    assert not torch.equal(found.depth, without.depth)
    agreed = color_agreement(context, found.depth, found.cameras)
    torch.testing.assert_close(
        found.surface.opacities, agreed.flatten(1) * without.surface.opacities, atol=0, rtol=1e-6
    )
    assert agreed.mean() < 0.99
    backdrop = slice(-found.num_backdrop, None)
    assert torch.equal(found.gaussians.opacities[:, backdrop], without.gaussians.opacities[:, backdrop])


@torch.no_grad()
def test_targets_are_located_on_the_compared_depth():
    compares, _ = _models()
    images, _, _ = _world()
    whole = compares(images[:, :3], images[:, 3:]).target_cameras
    context = compares.encode_context(images[:, :3])
    assert whole is not None
    torch.testing.assert_close(
        compares.locate(context, images[:, 3:]).world_from_camera, whole.world_from_camera
    )
    as_predicted = replace(context, depth_factor=None)
    assert not torch.equal(
        compares.locate(as_predicted, images[:, 3:]).world_from_camera, whole.world_from_camera
    )


def test_more_views_than_a_view_is_compared_with():
    torch.manual_seed(0)
    cameras, depth = _cameras(11), torch.ones(1, 11, 8, 8)
    features = F.normalize(torch.randn(1, 11, 4, 8, 8), dim=2)
    ranked = torch.stack(list(nearest_views(cameras, 8)), -1)[0, 0]
    seen = torch.cat([torch.zeros(1, dtype=torch.long), ranked])
    fewer = Cameras(cameras.world_from_camera[:, seen], cameras.intrinsics[:, seen])
    every = sweep_factor(features, depth, cameras)[:, 0]
    torch.testing.assert_close(every, sweep_factor(features[:, seen], depth[:, seen], fewer)[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"points": "canonical"}, {"masked": False}, {"solve_poses": False}])
def test_what_cannot_compare_is_left_as_it_is(changes):
    torch.manual_seed(0)
    config = replace(presets.get("tiny"), solve_focal=False, **changes)
    compares = NAS3R(config).eval()
    plain = NAS3R(replace(config, compare_views=False)).eval()
    plain.load_state_dict(compares.state_dict())
    images, _, _ = _world()
    found, same = compares(images[:, :3], images[:, 3:]), plain(images[:, :3], images[:, 3:])
    assert torch.equal(found.depth, same.depth)
    assert torch.equal(found.gaussians.opacities, same.gaussians.opacities)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"patch_size": 4}, {"gaussian_stride": 2}])
def test_other_cells_are_compared(changes):
    torch.manual_seed(0)
    model = NAS3R(replace(presets.get("tiny"), **changes)).eval()
    images, _, _ = _world(size=32)
    prediction = model(images[:, :3])
    assert prediction.depth.isfinite().all()
    assert prediction.gaussians.opacities.isfinite().all()


def test_training_sees_depth_as_it_was_predicted():
    compares, plain = _models()
    images, _, _ = _world()
    found, same = compares.train()(images[:, :3]), plain.train()(images[:, :3])
    assert torch.equal(found.depth, same.depth)
    assert torch.equal(found.gaussians.opacities, same.gaussians.opacities)


def test_gradients_pass_through_compared_views():
    compares, _ = _models()
    images, _, _ = _world()
    prediction = compares(images[:, :3])
    (prediction.gaussians.opacities.sum() + prediction.depth.log().square().sum()).backward()
    gradient = [p.grad for p in compares.depth_head.parameters() if p.grad is not None]
    assert gradient
    assert all(g.isfinite().all() for g in gradient)
