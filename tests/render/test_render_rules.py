"""The compositing rules, on scenes small enough to compute by hand; for both CPU backends."""

import pytest
import torch

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render import render
from nas3r.render.projection import LOW_PASS
from nas3r.render.spherical_harmonics import SH0

BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu"])
SIZE = 9  # the centre of pixel (4, 4) is the centre of the image
FOCAL = 10.0  # pixels


def camera() -> Cameras:
    k = torch.tensor([[FOCAL / SIZE, 0, 0.5], [0, FOCAL / SIZE, 0.5], [0, 0, 1]])
    return Cameras(torch.eye(4)[None, None], k[None, None])


def on_axis(depths, opacities, colors, scale=0.1) -> Gaussians:
    """Round Gaussians on the optical axis."""
    n = len(depths)
    means = torch.zeros(1, n, 3)
    means[..., 2] = torch.tensor(depths)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(1, n, 4)
    sh = ((torch.tensor(colors) - 0.5) / SH0)[None, :, None, :]
    return Gaussians(means, quats, torch.full((1, n, 3), scale), torch.tensor(opacities)[None], sh)


RED, GREEN, BLUE = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]


@BACKENDS
def test_profile_of_one_gaussian(backend):
    out = render(on_axis([2.0], [0.8], [RED]), camera(), SIZE, SIZE, backend=backend)
    variance = (FOCAL * 0.1 / 2) ** 2 + LOW_PASS
    offsets = torch.arange(SIZE) - 4.0
    alpha = 0.8 * torch.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / variance)
    alpha[alpha < 1 / 255] = 0
    # float32 evaluation of an exponential.
    torch.testing.assert_close(out.alpha[0, 0], alpha, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.color[0, 0, 0], alpha, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.depth[0, 0], torch.where(alpha > 0, 2.0, 0.0), rtol=1e-5, atol=1e-6)


@BACKENDS
def test_front_to_back_whatever_the_order(backend):
    out = render(on_axis([3.0, 2.0], [0.5, 0.5], [RED, GREEN]), camera(), SIZE, SIZE, backend=backend)
    centre = out.color[0, 0, :, 4, 4]
    torch.testing.assert_close(centre, torch.tensor([0.25, 0.5, 0.0]))
    torch.testing.assert_close(out.depth[0, 0, 4, 4], torch.tensor((0.5 * 2 + 0.25 * 3) / 0.75))


@BACKENDS
def test_equal_depths_keep_the_order_of_the_gaussians(backend):
    out = render(on_axis([2.0, 2.0], [0.5, 0.5], [RED, GREEN]), camera(), SIZE, SIZE, backend=backend)
    torch.testing.assert_close(out.color[0, 0, :, 4, 4], torch.tensor([0.5, 0.25, 0.0]))


@BACKENDS
def test_alpha_saturates_at_99_percent(backend):
    out = render(on_axis([2.0], [1.0], [RED]), camera(), SIZE, SIZE, backend=backend)
    torch.testing.assert_close(out.alpha[0, 0, 4, 4], torch.tensor(0.99))


@BACKENDS
def test_a_pixel_ends_before_the_splat_that_exhausts_it(backend):
    # Transmittance 0.01, then 1e-4 * 0.5 with the second: that one and all behind it are left out.
    gaussians = on_axis([2.0, 3.0, 4.0], [1.0, 0.995, 0.2], [RED, GREEN, BLUE])
    out = render(gaussians, camera(), SIZE, SIZE, backend=backend)
    torch.testing.assert_close(out.color[0, 0, :, 4, 4], torch.tensor([0.99, 0.0, 0.0]), atol=1e-4, rtol=0)


@BACKENDS
def test_background_shows_through(backend):
    gaussians = on_axis([2.0], [0.25], [RED])
    out = render(gaussians, camera(), SIZE, SIZE, background=torch.tensor([0.2, 0.4, 0.8]), backend=backend)
    torch.testing.assert_close(out.color[0, 0, :, 4, 4], torch.tensor([0.25 + 0.15, 0.3, 0.6]))
    torch.testing.assert_close(out.color[0, 0, :, 0, 0], torch.tensor([0.2, 0.4, 0.8]))


@BACKENDS
def test_median_depth_is_where_half_of_alpha_is_reached(backend):
    gaussians = on_axis([2.0, 3.0, 4.0], [0.2, 0.5, 0.9], [RED, GREEN, BLUE])
    out = render(gaussians, camera(), SIZE, SIZE, backend=backend, depth_mode="median")
    # Weights 0.2, 0.4, 0.36: half of 0.96 is reached by the second.
    assert out.depth[0, 0, 4, 4] == 3.0
    assert out.depth[0, 0, 0, 0] == 0.0


@BACKENDS
def test_near_plane(backend):
    gaussians = on_axis([0.5, 2.0], [0.5, 0.5], [RED, GREEN])
    kept = render(gaussians, camera(), SIZE, SIZE, backend=backend, near=0.4)
    culled = render(gaussians, camera(), SIZE, SIZE, backend=backend, near=0.5)
    assert kept.color[0, 0, 0, 4, 4] > 0
    assert culled.color[0, 0, 0, 4, 4] == 0
    assert culled.color[0, 0, 1, 4, 4] == 0.5


@BACKENDS
def test_colors_are_clamped_at_zero(backend):
    out = render(on_axis([2.0], [0.5], [[-1.0, 0.5, 2.0]]), camera(), SIZE, SIZE, backend=backend)
    torch.testing.assert_close(out.color[0, 0, :, 4, 4], torch.tensor([0.0, 0.25, 1.0]))
