"""Dense depth by PatchMatch: the cost against its twin, planes, generated worlds, order of views."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas3r.consistency.filling import carried_by, filled, spread
from nas3r.consistency.patch_match import DenseViews, dense_depth
from nas3r.consistency.plane_cost import SAMPLES, read_window, slow_cost, window_cost
from nas3r.consistency.sources import source_views
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import Cameras, make_pose, so3_exp, unproject_depth

_TILT = (0.3, -0.2)  # slopes of a wall's inverse depth, along both axes


def _texture(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Smooth colours [3, ...] of a wall, with detail at several scales and no period in sight."""
    channels = []
    for c in range(3):
        total = torch.zeros_like(x)
        for k, (a, b) in enumerate([(3.1, 1.7), (-6.3, 9.2), (27.0, 19.3), (36.0, -41.0)]):
            total += torch.sin(a * x + b * y + c + 2 * k + torch.sin(5 * y - 3 * x + k))
        channels.append(0.5 + total / 8)
    return torch.stack(channels)


def _wall(views: int = 3, height: int = 96, width: int = 128) -> tuple[torch.Tensor, torch.Tensor, Cameras]:
    """Images, z-depth and cameras of a slanted wall, on which every view's inverse depth is linear."""
    turn = so3_exp(torch.tensor([[0.0, 0.03 * i, 0.01 * i] for i in range(views)]))
    shift = torch.tensor([[0.12 * i, 0.03 * i * i, 0.02 * i] for i in range(views)])
    cameras = Cameras(
        make_pose(turn, shift)[None],
        torch.diag(torch.tensor([1.0, 4 / 3, 1.0])).expand(1, views, 3, 3).clone(),
    )
    cameras.intrinsics[..., :2, 2] = 0.5
    # Points X of the wall: n X = 1, with n in the world.
    n = torch.tensor([*_TILT, 0.5])
    rays = (
        unproject_depth(cameras, torch.ones(1, views, height, width))[0] - cameras.centers[0][:, None, None]
    )
    along = (1 - (cameras.centers[0] @ n)[:, None, None]) / (rays @ n)
    points = cameras.centers[0][:, None, None] + along[..., None] * rays
    return _texture(points[..., 0], points[..., 1]).movedim(0, 1).contiguous(), along, cameras


def _rough(depth: torch.Tensor) -> torch.Tensor:
    """Coarse depth that is off by some percent, smoothly."""
    small = F.avg_pool2d(depth[:, None], 4)[:, 0]
    rows, columns = torch.meshgrid(*(torch.linspace(0, 6, n) for n in small.shape[1:]), indexing="ij")
    return small * (0.08 * torch.sin(rows + 1) * torch.cos(columns)).exp()


def _error(depth: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return (depth / truth - 1).abs()


@pytest.mark.parametrize("seed", range(8))
def test_cost_is_that_of_its_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey, other = (rng.random((24, 31)).astype(np.float32) for _ in range(2))
    matrix = np.eye(3) + 0.02 * rng.standard_normal((3, 3)) * [[1, 1, 30], [1, 1, 30], [0.02, 0.02, 1]]
    shift = rng.standard_normal(3) * [8, 8, 0.1]
    pixel = int(rng.integers(24)), int(rng.integers(31))
    plane = 0.5 + rng.random(), 0.02 * rng.standard_normal(), 0.02 * rng.standard_normal()
    values, weights = np.empty(SAMPLES, np.float32), np.empty(SAMPLES, np.float32)
    variance = read_window(grey, *pixel, values, weights)
    warp = np.concatenate([matrix.ravel(), shift]).astype(np.float32)
    x, y = np.float32(pixel[1] + 0.5), np.float32(pixel[0] + 0.5)
    found = window_cost(values, weights, variance, x, y, *np.array(plane, np.float32), warp, other)
    # Places are exact to 1e-5 pixels in float32, where grey values differ by up to 1 per pixel.
    assert found == pytest.approx(slow_cost(grey, other, matrix, shift, pixel, plane), abs=1e-3)


def test_cost_of_the_same_view_is_nothing() -> None:
    grey = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    # Variances are as large as 0.01; the constant beside them is a few thousandths of that.
    assert slow_cost(grey, grey, np.eye(3), np.zeros(3), (9, 9), (1.0, 0, 0)) < 0.01
    assert slow_cost(grey, 1 - grey, np.eye(3), np.zeros(3), (9, 9), (1.0, 0, 0)) == 1
    assert slow_cost(grey, grey, np.eye(3), np.array([50.0, 0, 0]), (9, 9), (1.0, 0, 0)) == 1


@pytest.fixture(scope="module")
def wall() -> tuple[torch.Tensor, torch.Tensor, Cameras, DenseViews]:
    images, depth, cameras = _wall()
    return images, depth, cameras, dense_depth(images, cameras, _rough(depth))


def test_slanted_wall_is_met(wall) -> None:
    _, depth, _, found = wall
    coarse = F.interpolate(_rough(depth)[None], size=depth.shape[1:], mode="bilinear")[0]
    assert _error(coarse, depth).median() > 0.02
    # A tenth of a pixel of parallax, at a focal length of 128 pixels and a baseline of a sixteenth.
    sure = found.confidence > 0.5
    assert sure.float().mean() > 0.6  # other views do not show the rest
    assert _error(found.depth, depth)[sure].median() < 0.003
    assert _error(found.depth, depth).mean() < 0.4 * _error(coarse, depth).mean()


def test_normals_are_the_walls(wall) -> None:
    _, _, cameras, found = wall
    n = torch.tensor([*_TILT, 0.5])
    expected = -F.normalize(cameras.camera_from_world[0, :, :3, :3] @ n, dim=-1)
    angle = torch.acos((found.normals * expected[:, :, None, None]).sum(1).clamp(-1, 1)).rad2deg()
    assert angle[found.confidence > 0.5].median() < 4


def test_order_of_views_does_not_matter(wall) -> None:
    images, depth, cameras, found = wall
    order = [2, 0, 1]
    again = dense_depth(images[order], cameras.views(order), _rough(depth)[order])
    torch.testing.assert_close(again.depth, found.depth[order], rtol=1e-4, atol=0)
    torch.testing.assert_close(again.confidence, found.confidence[order], rtol=0, atol=1e-3)


def test_scale_does_not_matter(wall) -> None:
    images, depth, cameras, found = wall
    pose = cameras.world_from_camera.clone()
    pose[..., :3, 3] *= 4
    again = dense_depth(images, Cameras(pose, cameras.intrinsics), 4 * _rough(depth))
    torch.testing.assert_close(again.depth / 4, found.depth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("world", [6, 11])
def test_generated_world_is_nearer_to_its_truth_than_the_start(world: int) -> None:
    scene = SyntheticScenes(world, SyntheticConfig(frames=16), length=1)[0]
    read = scene.read([0, 4, 8, 12], 128, 128)
    assert read.depth is not None
    known = read.depth > 0
    truth = torch.where(known, read.depth, read.depth.max())
    coarse = _rough(truth)
    start = F.interpolate(coarse[None], size=(128, 128), mode="bilinear")[0]
    found = dense_depth(read.images, read.cameras, coarse)
    before, after = (_error(depth, truth)[known] for depth in (start, found.depth))
    # Edges, a pixel or two beside where they are, dominate the mean: it hardly moves in one of the worlds.
    assert after.median() < 0.5 * before.median()
    assert after.mean() < 1.05 * before.mean()
    sure = (found.confidence > 0.5)[known]
    assert after[sure].median() < 0.3 * before[sure].median()
    assert after[sure].mean() < after[~sure].mean()


def test_points_correct_the_start() -> None:
    inverse = torch.full((24, 32), 0.5)
    xy = torch.rand(400, 2)
    factor = carried_by(xy, 2 * (1 + 0.2 * xy[:, 0]), inverse)
    columns = (torch.arange(32) + 0.5) / 32
    torch.testing.assert_close(factor, (1 + 0.2 * columns).expand(24, 32), rtol=0.02, atol=0)


def test_what_is_not_sure_follows_the_start_as_its_surroundings_do() -> None:
    coarse = torch.linspace(0.3, 0.6, 40).expand(1, 30, 40)
    found = 1.2 * coarse.clone()
    confidence = torch.ones(1, 30, 40)
    found[:, 10:20, 10:30] = 9.0
    confidence[:, 10:20, 10:30] = 0
    torch.testing.assert_close(filled(found, confidence, coarse), 1.2 * coarse, rtol=0.01, atol=0)
    torch.testing.assert_close(spread(found, torch.zeros_like(found)), torch.zeros_like(found))


def test_sources_show_the_same_from_another_side() -> None:
    turn = so3_exp(torch.tensor([[0.0, a, 0.0] for a in (0.0, 0.0, 0.0, 3.1)]))
    shift = torch.tensor([[0.0, 0, 0], [0.001, 0, 0], [0.3, 0, 0], [0.3, 0, 0]])
    k = torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).expand(1, 4, 3, 3)
    chosen = source_views(Cameras(make_pose(turn, shift)[None], k), torch.full((4, 16, 16), 2.0), 2)
    assert chosen[0] == [2, 1]
    assert chosen[2][:2] == [1, 0] or chosen[2][:2] == [0, 1]


def test_numbers_of_views_must_agree() -> None:
    images, depth, cameras = _wall(2, 32, 32)
    with pytest.raises(ValueError, match="at least two views"):
        dense_depth(images[:1], cameras, _rough(depth))
