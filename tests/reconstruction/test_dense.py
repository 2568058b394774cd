"""Depth and Gaussians at full size, wired into a scene: better ones are taken, worse ones are not."""

import numpy as np
import pytest
import torch

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, make_pose, so3_exp, unproject_depth
from nas3r.io.depth import DepthMap, read_depth_npz, write_depth_npz
from nas3r.io.images import Resize
from nas3r.reconstruction.dense import densified
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.record import Record
from nas3r.reconstruction.scene import HeldOut, Scene

_HEIGHT, _WIDTH = 64, 96
_DEPTH = 2.0


def _photos(count: int) -> list[np.ndarray]:
    """A textured wall, each photo four pixels further to the right."""
    rng = np.random.default_rng(0)
    wide = torch.from_numpy(rng.random((1, 3, _HEIGHT, 2 * _WIDTH)))
    blurred = torch.nn.functional.avg_pool2d(wide, 3, 1, 1, count_include_pad=False)[0].permute(1, 2, 0)
    pixels = (blurred.numpy() * 255).astype(np.uint8)
    return [pixels[:, 4 * i : 4 * i + _WIDTH] for i in range(count)]


def _options(most: int) -> ReconstructOptions:
    return ReconstructOptions(max_gaussians=most, refine_steps=3)


def _scene(gaussians: Gaussians, full: list[np.ndarray], aside: int) -> Scene:
    """At a quarter of the photos' size; the last photos are kept aside."""
    count = len(full)
    shift = torch.zeros(count, 3)
    shift[:, 0] = 4 * _DEPTH / _WIDTH * torch.arange(count)
    k = torch.tensor([[1.0, 0, 0.5], [0, _WIDTH / _HEIGHT, 0.5], [0, 0, 1]]).expand(1, count, 3, 3)
    cameras = Cameras(make_pose(so3_exp(torch.zeros(count, 3)), shift)[None], k)
    resize = Resize(_WIDTH, _HEIGHT, _WIDTH // 4, _HEIGHT // 4, exact=True)
    views = [View(f"{i}.png", f"{i}.png", None, full[i], resize, 1.0) for i in range(count)]
    small = torch.stack([torch.from_numpy(resize.apply(i) / 255).permute(2, 0, 1).float() for i in full])
    seen = slice(0, count - aside)
    tests = HeldOut(
        views[count - aside :], small[count - aside :], cameras.views(slice(count - aside, count))
    )
    return Scene(
        cameras=cameras.views(seen),
        depth=torch.full((count - aside, _HEIGHT // 4, _WIDTH // 4), 1.02 * _DEPTH),
        gaussians=gaussians,
        images=small[seen],
        views=views[seen],
        held_out=tests if aside else None,
        record=Record(weights=None),
    )


@pytest.mark.parametrize("aside", [0, 1])
def test_gaussians_of_full_size_replace_none(aside: int) -> None:
    full = _photos(4)
    scene = _scene(Gaussians.empty(), full, aside)
    fine = densified(scene, full, Gaussians.empty(), _options(20_000))
    assert fine.size == (_WIDTH, _HEIGHT)
    assert fine.record.dense is not None
    assert fine.record.dense["kept"]
    assert fine.record.dense["steps"] == 3
    assert fine.record.dense["psnr"][0] is None
    assert fine.record.dense["psnr"][1] > 16  # three steps after merging; the empty scene has 8
    assert fine.confidence is not None
    assert fine.confidence.mean() > 0.5
    sure = fine.confidence > 0.5
    # A tenth of a pixel of the parallax of twelve.
    assert (fine.depth[sure] / _DEPTH - 1).abs().median() < 0.01
    assert 0 < fine.gaussians.num_gaussians <= 20_000


def test_worse_gaussians_are_not_taken() -> None:
    full = _photos(4)
    exact = _scene(Gaussians.empty(), full, 1)
    pixels = torch.from_numpy(np.stack(full[3:])).float() / 255
    test = exact.held_out
    assert test is not None
    points = unproject_depth(test.cameras, torch.full((1, 1, _HEIGHT, _WIDTH), _DEPTH)).reshape(1, -1, 3)
    sigma = torch.full(points.shape[:2], 0.4 * _DEPTH / _WIDTH)
    good = Gaussians.spheres(points, sigma, pixels.reshape(1, -1, 3), 0.99)
    fine = densified(_scene(good, full, 1), full, Gaussians.empty(), _options(30))
    assert fine.record.dense is not None
    assert not fine.record.dense["kept"]
    assert fine.gaussians is good
    assert any("Gaussians are the network's" in note for note in fine.record.notes)


def test_confidence_is_in_the_file(tmp_path) -> None:
    depth, confidence = np.full((4, 6), 2, np.float32), np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    path = tmp_path / "depth.npz"
    write_depth_npz(path, DepthMap(depth, np.eye(3), np.eye(4), confidence), 1.0)
    np.testing.assert_array_equal(read_depth_npz(path).confidence, confidence)
    write_depth_npz(path, DepthMap(depth, np.eye(3), np.eye(4)), 1.0)
    assert read_depth_npz(path).confidence is None
    write_depth_npz(path, DepthMap(depth, np.eye(3), np.eye(4), confidence[:2]), 1.0)
    with pytest.raises(ValueError, match="confidence has another shape"):
        read_depth_npz(path)
