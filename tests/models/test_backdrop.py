"""What stands behind a scene, so that what no view shows is not black."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from model_helpers import random_model, random_views, reduced

import nas3r
from nas3r.gaussians import SH_C0
from nas3r.geometry import Cameras, project, se3_exp
from nas3r.models.ablations import without_backdrop
from nas3r.models.backdrop import backdrop, num_squares

CELL = 8


@pytest.fixture
def cameras():
    k = torch.tensor([[0.9, 0, 0.45], [0, 1.2, 0.55], [0, 0, 1]]).expand(1, 2, 3, 3)
    poses = se3_exp(torch.tensor([[[0.0] * 6, [0.2, -0.1, 0.1, 0.05, 0.1, -0.2]]]))
    return Cameras(poses, k)


@pytest.fixture
def images():
    torch.manual_seed(0)
    cells = torch.rand(2, 3, 4, 6)
    return cells.repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)[None]


def test_each_view_is_seen_blurred_from_where_it_was_taken(cameras, images):
    depth = 1 + torch.rand(1, 2, 32, 48)
    alone = [backdrop(images[:, [v]], depth[:, [v]], cameras.views([v]), CELL, 0).detach() for v in range(2)]
    for v, gaussians in enumerate(alone):
        seen = nas3r.render(gaussians, cameras.views([v]), 32, 48)
        assert seen.alpha.min() > 0.9
        # The cells are of random colours: a blur by 0.6 of a cell keeps half of their variance and more.
        seen_cells, cells = (F.avg_pool2d(x, CELL) for x in (seen.color[0, 0], images[0, v]))
        assert (seen_cells - cells).square().mean() < 0.5 * cells.var()


def test_it_stands_behind_nearly_everything_its_view_shows(cameras, images):
    depth = 1 + torch.rand(1, 2, 32, 48)
    gaussians = backdrop(images, depth, cameras, CELL, 2)
    assert gaussians.num_gaussians == 2 * num_squares(32, 48, CELL) == 2 * 8 * 10
    assert gaussians.sh.shape[2:] == (9, 3)
    assert (gaussians.sh[:, :, 1:] == 0).all()
    xy, z = project(cameras, gaussians.means)
    for v in range(2):
        own = slice(80 * v, 80 * (v + 1))
        torch.testing.assert_close(z[0, v, own], (1.5 * depth[0, v].quantile(0.95)).expand(80))
        inside = (xy[0, v, own] > 0).all(-1) & (xy[0, v, own] < 1).all(-1)
        assert inside.sum() == 24
        colors = 0.5 + SH_C0 * gaussians.sh[0, own, 0][inside]
        torch.testing.assert_close(colors, F.avg_pool2d(images[0, v], CELL).flatten(1).mT)


def test_cameras_feel_it_and_depth_does_not(cameras, images):
    depth = (1 + torch.rand(1, 2, 32, 48)).requires_grad_()
    k = cameras.intrinsics.clone().requires_grad_()
    gaussians = backdrop(images, depth, replace(cameras, intrinsics=k), CELL, 0)
    gaussians.means.square().sum().backward()
    assert depth.grad is None
    assert k.grad.abs().sum() > 0


def test_a_model_puts_it_after_the_gaussians_of_its_pixels():
    config = reduced("tiny")
    images = random_views(config, 3)
    with torch.no_grad():
        with_it = random_model(config).eval()(images)
        without = random_model(without_backdrop(config)).eval()(images)
    h, w = images.shape[-2:]
    n = 3 * num_squares(h, w, config.patch_size)
    assert (with_it.num_backdrop, without.num_backdrop) == (n, 0)
    assert with_it.gaussians.num_gaussians == without.gaussians.num_gaussians + n
    torch.testing.assert_close(with_it.surface.means, without.gaussians.means)
    assert torch.equal(with_it.owners[:-n], without.owners)
    assert (with_it.owners[-n:] == -1).all()
    assert torch.equal(without.owners.bincount(), torch.full((3,), h * w))
    before, after = (nas3r.render(p.gaussians, p.cameras, h, w).alpha.min() for p in (without, with_it))
    assert after >= before
