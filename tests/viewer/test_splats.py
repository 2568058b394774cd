"""What the viewer draws."""

import numpy as np
import pytest
import torch

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.geometry import Cameras, so3_exp
from nas3r.geometry.rotation import quat_from_matrix
from nas3r.viewer import Filters, splat_arrays
from nas3r.viewer.splats import DISPLAY_SIGMA, display_scale, filtered


def some_gaussians(n: int = 100) -> Gaussians:
    return Gaussians(
        torch.randn(1, n, 3) + torch.tensor([0.0, 0, 5]),
        torch.nn.functional.normalize(torch.randn(1, n, 4), dim=-1),
        torch.rand(1, n, 3) * 1e-3 + 1e-4,
        torch.linspace(0, 1, n)[None],
        torch.randn(1, n, 4, 3),
    )


def origin() -> Cameras:
    return Cameras(torch.eye(4).expand(1, 1, 4, 4), torch.eye(3).expand(1, 1, 3, 3))


def test_arrays_of_a_known_gaussian() -> None:
    rotation = so3_exp(torch.tensor([0.3, -0.5, 0.2]))
    scales = torch.tensor([0.1, 0.2, 0.3])
    gaussian = Gaussians(
        torch.tensor([[[1.0, 2, 3]]]),
        quat_from_matrix(rotation)[None, None],
        scales[None, None],
        torch.tensor([[0.7]]),
        ((torch.tensor([1.0, 0.5, 0.0]) - 0.5) / SH_C0)[None, None, None],
    )
    arrays = splat_arrays(gaussian, origin(), Filters(size_factor=2.0), enlarge=10.0)
    np.testing.assert_allclose(arrays.centers, [[10, 20, 30]])
    covariance = rotation @ torch.diag((20 * scales) ** 2) @ rotation.T
    np.testing.assert_allclose(arrays.covariances[0], covariance.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(arrays.rgbs, [[255, 128, 0]])
    np.testing.assert_allclose(arrays.opacities, [[0.7]])


def test_covariances_survive_half_precision() -> None:
    gaussians = some_gaussians()
    arrays = splat_arrays(gaussians, origin(), Filters(), display_scale(gaussians))
    half = arrays.covariances.astype(np.float16).astype(np.float32)
    diagonal = np.diagonal(arrays.covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(np.diagonal(half, axis1=1, axis2=2), diagonal, rtol=1e-3)  # half: 2^-11
    assert np.median(diagonal) == pytest.approx(DISPLAY_SIGMA**2, rel=0.5)


def test_filters_hide_the_transparent_and_the_large() -> None:
    gaussians = some_gaussians()
    opaque = filtered(gaussians, Filters(min_opacity=0.5))
    assert opaque.num_gaussians == 50
    assert opaque.opacities.min() >= 0.5
    small = filtered(gaussians, Filters(max_size=0.9))
    assert small.num_gaussians == 90
    assert small.scales.amax() < gaussians.scales.amax()
    assert filtered(gaussians, Filters()).num_gaussians == 100
    torch.testing.assert_close(filtered(gaussians, Filters(size_factor=0.5)).scales, gaussians.scales / 2)
    assert filtered(Gaussians.empty(), Filters(max_size=0.5)).num_gaussians == 0


def test_depth_colours_do_not_depend_on_the_filters() -> None:
    gaussians = some_gaussians()
    everything = splat_arrays(gaussians, origin(), Filters(coloring="depth"), 1.0)
    some = splat_arrays(gaussians, origin(), Filters(coloring="depth", min_opacity=0.5), 1.0)
    np.testing.assert_array_equal(some.rgbs, everything.rgbs[50:])
    distance = gaussians.means[0].norm(dim=-1)
    lightness = everything.rgbs.astype(int).sum(1)
    assert lightness[distance.argmin()] > lightness[distance.argmax()]


def test_nothing_to_draw() -> None:
    arrays = splat_arrays(Gaussians.empty(), origin(), Filters(coloring="depth"), 1.0)
    assert arrays.centers.shape == (0, 3)
    assert arrays.covariances.shape == (0, 3, 3)
    assert display_scale(Gaussians.empty()) == 1
