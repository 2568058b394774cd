"""Surfaces on which the views of a context agree: depth by plane sweep, Gaussians by colour."""

import math
from dataclasses import replace

import pytest
import torch

from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import Cameras, make_pose, project, so3_exp, unproject_depth
from nas3r.models import NAS3R, presets
from nas3r.models.patch_features import PatchProjections
from nas3r.models.photo_consistency import color_agreement
from nas3r.models.plane_sweep import swept_depth
from nas3r.models.reprojection import nearest_views, reproject


def _cameras(views: int, spread: float = 0.2) -> Cameras:
    turn = so3_exp(0.1 * torch.randn(1, views, 3))
    poses = make_pose(turn, spread * torch.randn(1, views, 3))
    k = torch.tensor([[1.1, 0, 0.5], [0, 1.3, 0.48], [0, 0, 1]]).expand(1, views, 3, 3)
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


def test_swept_depth_against_a_loop():
    torch.manual_seed(0)
    views, size = 3, 8
    cameras = _cameras(views)
    depth = 1 + torch.rand(1, views, size, size)
    features = torch.nn.functional.normalize(torch.randn(1, views, 4, size, size), dim=2)
    factor = swept_depth(features, depth, cameras)

    half = size // 2
    coarse = torch.nn.functional.avg_pool2d(torch.cat([features[0], depth[0][:, None]], 1), 2)
    shifts = [0.06 * i for i in range(-8, 9)]
    likeness = torch.zeros(len(shifts), views, half, half)
    for i, shift in enumerate(shifts):
        for view in range(views):
            scaled = coarse[view : view + 1, 4][None] * math.exp(shift)
            own = Cameras(cameras.world_from_camera[:, [view]], cameras.intrinsics[:, [view]])
            xy, z = project(cameras, unproject_depth(own, scaled).flatten(1, 3))
            for n in range(half * half):
                total, seen = 0.0, 0.5
                for other in set(range(views)) - {view}:
                    x, y = xy[0, other, n].tolist()
                    if z[0, other, n] > 0 and 0 < x < 1 and 0 < y < 1:
                        there = _bilinear(features[0, other], x, y)
                        total += float(there @ coarse[view, :4].flatten(1)[:, n])
                        seen += 1
                likeness[i, view].view(-1)[n] = total / seen
    line = torch.exp(-0.5 * (torch.arange(-3, 4) / 2.0) ** 2)  # of the 13 weights those that reach inside
    whole = torch.exp(-0.5 * (torch.arange(-6, 7) / 2.0) ** 2).sum()
    weight = torch.stack([line[3 - i : 7 - i] for i in range(half)]) / whole
    smooth = weight @ likeness @ weight.T
    cost = (torch.tensor(shifts) / shifts[-1]).square()
    chosen = (20 * smooth - cost[:, None, None, None]).softmax(0)
    moved = (chosen * torch.tensor(shifts)[:, None, None, None]).sum(0)
    expected = torch.nn.functional.interpolate(moved[None], size=(size, size), mode="bilinear").exp()
    torch.testing.assert_close(factor, expected, atol=1e-5, rtol=1e-5)  # float32 sums


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_depth_returns_to_where_views_look_alike(wrong):
    images, depth, cameras = _world()
    features = PatchProjections(((5, 1), (7, 1)))(images[0])[None]
    factor = swept_depth(features, wrong * depth, cameras)
    off = (factor * wrong).log().abs()
    assert off.median() < 0.3 * abs(math.log(wrong))
    kept = swept_depth(features, depth, cameras).log().abs()
    assert kept.median() < 0.03  # half a step


def test_color_agreement_against_a_loop():
    torch.manual_seed(1)
    views, size = 3, 6
    cameras = _cameras(views)
    images, depth = torch.rand(1, views, 3, size, size), 1 + torch.rand(1, views, size, size)
    found = color_agreement(images, depth, cameras)
    points = unproject_depth(cameras, depth)
    for view in range(views):
        xy, z = project(cameras, points[:, view].flatten(1, 2))
        for n in range(size * size):
            agree = seen = 0.5
            for other in set(range(views)) - {view}:
                x, y = xy[0, other, n].tolist()
                if not (z[0, other, n] > 0 and 0 < x < 1 and 0 < y < 1):
                    continue
                if z[0, other, n] < 1.1 * _bilinear(depth[0, other][None], x, y):
                    off = _bilinear(images[0, other], x, y) - images[0, view].flatten(1)[:, n]
                    agree += math.exp(-float(off.square().mean()) / (2 * 0.1**2))
                    seen += 1
            assert float(found[0, view].flatten()[n]) == pytest.approx(agree / seen, abs=1e-5)


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
    assert (found.surface.opacities <= without.surface.opacities + 1e-6).all()
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
