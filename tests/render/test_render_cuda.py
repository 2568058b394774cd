"""gsplat's compositor against the reference; what needs no GPU is tested everywhere."""

import pytest
import torch
from render_scenes import assert_close, degenerate_scenes, random_scene, values_and_gradients

from nas3r.render import cuda, reference, render
from nas3r.render.projection import project_gaussians

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

# float32, atomic sums in any order, and gsplat's fast exponential (2 units in the last place).
TOLERANCE = 1e-3

# Left out: opacities above 0.99, where gsplat saturates later than the rules say.
SCENES = {name: build for name, build in degenerate_scenes().items() if name != "full opacity"}


def test_median_from_lists_of_pairs():
    """The search for the median, on pairs listed from the reference's own alphas."""
    gaussians, cameras = random_scene(8, b=1, v=2, n=60)
    height, width = 12, 17
    splats = project_gaussians(gaussians, cameras, height, width, sh_degree=0, near=0.01)
    expected = reference.composite(splats, height, width, median=True).median_index

    order = splats.depths.sort(stable=True).indices
    alpha = reference._alphas(splats, height, width).gather(-1, order[:, :, None].expand(-1, -1, 204, -1))[0]
    seen = (alpha > 0) & (torch.cumprod(1 - alpha, -1) >= 1e-4)
    view, pixel, rank = seen.nonzero(as_tuple=True)
    index = cuda.half_alpha_index(alpha[seen], order[0][view, rank], view * 204 + pixel, 2 * 204)
    assert (index == -1).any()
    assert torch.equal(index.reshape(expected.shape), expected)


@pytest.mark.parametrize("median", [False, True])
def test_nothing_to_render_needs_no_gpu(median):
    gaussians, cameras = random_scene(8, b=2, v=2, n=3)
    gaussians = gaussians.select(slice(0, 0))
    gaussians.sh.requires_grad_()
    pytest.importorskip("gsplat")
    splats = project_gaussians(gaussians, cameras, 5, 7, sh_degree=0, near=0.01)
    out = cuda.composite(splats, 5, 7, median=median)
    assert out.color.shape == (2, 2, 3, 5, 7)
    assert not out.alpha.any()
    out.color.sum().backward()


def compare(gaussians, cameras, **options) -> None:
    expected = values_and_gradients(gaussians, cameras, dtype=torch.float64, backend="reference", **options)
    actual = values_and_gradients(
        gaussians, cameras, dtype=torch.float32, backend="cuda", device="cuda", **options
    )
    assert_close(actual, expected, TOLERANCE)


@gpu
@pytest.mark.parametrize("seed", range(5))
def test_random_scenes(seed):
    compare(*random_scene(seed))


@gpu
@pytest.mark.parametrize("name", SCENES)
def test_degenerate_scenes(name):
    compare(*SCENES[name]())


@gpu
@pytest.mark.parametrize("name", ["equal depths", "opaque wall"])
def test_median_depth(name):
    compare(*SCENES[name](), depth_mode="median")


@gpu
@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 129), (64, 64)])
def test_image_sizes(height, width):
    compare(*random_scene(2, b=1, v=1, n=20), height=height, width=width)


@gpu
def test_no_gaussians_and_no_views():
    gaussians, cameras = (x.to(torch.float32).to("cuda") for x in random_scene(3))
    assert not render(gaussians.select(slice(0, 0)), cameras, 8, 8).alpha.any()
    assert render(gaussians, cameras.views([]), 8, 8).color.shape == (2, 0, 3, 8, 8)
