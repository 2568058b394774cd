"""Gaussians of surfaces: one for a piece of surface, within a budget, flat, and seen as the photos are."""

import dataclasses

import pytest
import torch

from nas3r.consistency.patch_match import DenseViews
from nas3r.consistency.surfaces import SurfaceConfig, surface_gaussians
from nas3r.evaluation.nvs import psnr
from nas3r.geometry import Cameras, make_pose, matrix_from_quat, so3_exp
from nas3r.render import render

_SIZE = 48


def _views(count: int, smooth: bool = False) -> tuple[torch.Tensor, Cameras, DenseViews]:
    """A wall at distance 2, seen head-on from places along a line, at whole pixels of parallax."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(3, _SIZE, 2 * _SIZE, generator=generator)
    if smooth:
        wide = torch.full_like(wide, 0.5)
    images = torch.stack([wide[:, :, 3 * i : 3 * i + _SIZE] for i in range(count)])
    shift = torch.zeros(count, 3)
    shift[:, 0] = 3 * 2 / _SIZE * torch.arange(count)
    k = torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).expand(1, count, 3, 3)
    cameras = Cameras(make_pose(so3_exp(torch.zeros(count, 3)), shift)[None], k)
    normals = torch.zeros(count, 3, _SIZE, _SIZE)
    normals[:, 2] = -1
    ones = torch.ones(count, _SIZE, _SIZE)
    return images, cameras, DenseViews(2 * ones, normals, ones)


def test_what_two_views_see_is_there_once() -> None:
    images, cameras, dense = _views(4)
    count = surface_gaussians(images, cameras, dense).num_gaussians
    shown = _SIZE * (_SIZE + 3 * 3)  # pixels of the wall that any of them shows
    # Views that see a point equally well may both keep it.
    apart = surface_gaussians(images, cameras, dataclasses.replace(dense, depth=dense.depth * _spread(4)))
    assert shown <= count
    assert apart.num_gaussians == 4 * _SIZE * _SIZE
    closest = dataclasses.replace(
        dense, confidence=dense.confidence * torch.tensor([1, 0.5, 0.5, 0.5])[:, None, None]
    )
    assert surface_gaussians(images, cameras, closest).num_gaussians < 1.2 * shown


def _spread(count: int) -> torch.Tensor:
    """Depths so far apart that no two views speak of one surface, unseen by one another."""
    return (1 + 0.1 * torch.arange(count))[:, None, None]


def test_views_are_rendered_as_they_are() -> None:
    images, cameras, dense = _views(3, smooth=False)
    smooth = torch.nn.functional.avg_pool2d(images, 7, 1, 3, count_include_pad=False)
    gaussians = surface_gaussians(smooth, cameras, dense)
    shown = render(gaussians, cameras, _SIZE, _SIZE).color[0]
    assert psnr(shown[..., 4:-4, 4:-4], smooth[..., 4:-4, 4:-4]).min() > 28


def test_smooth_surfaces_need_few_and_detail_many() -> None:
    plain = surface_gaussians(*_views(1, smooth=True)).num_gaussians
    detailed = surface_gaussians(*_views(1)).num_gaussians
    assert plain == (_SIZE // 8) ** 2
    assert detailed == _SIZE**2


@pytest.mark.parametrize("most", [2000, 500, 40, 3])
def test_budget_is_kept(most: int) -> None:
    images, cameras, dense = _views(3)
    assert surface_gaussians(images, cameras, dense, SurfaceConfig(most=most)).num_gaussians <= most


def test_gaussians_lie_flat_on_the_surface() -> None:
    images, cameras, dense = _views(1)
    tilted = torch.nn.functional.normalize(torch.tensor([0.6, 0.1, -1.0]), dim=0)
    dense = dataclasses.replace(dense, normals=tilted[:, None, None].expand(1, 3, _SIZE, _SIZE))
    gaussians = surface_gaussians(images, cameras, dense)
    axes = matrix_from_quat(gaussians.quats[0])
    thinnest = gaussians.scales[0].argmin(-1)
    normal = axes.gather(2, thinnest[:, None, None].expand(-1, 3, 1))[..., 0]
    torch.testing.assert_close((normal @ tilted).abs(), torch.ones(len(normal)), rtol=0, atol=1e-5)
    assert (gaussians.scales[0].min(-1).values < 0.3 * gaussians.scales[0].max(-1).values).all()
    assert (torch.linalg.det(axes) > 0.99).all()


def test_what_stands_before_what_others_are_sure_of_fades() -> None:
    images, cameras, dense = _views(3)
    depth, confidence = dense.depth.clone(), dense.confidence.clone()
    depth[1, 20:30, 20:30] = 1.2
    confidence[1, 20:30, 20:30] = 0
    gaussians = surface_gaussians(images, cameras, DenseViews(depth, dense.normals, confidence))
    floating = gaussians.means[0, :, 2] < 1.5
    assert floating.any()
    assert gaussians.opacities[0][floating].max() < 0.3 * gaussians.opacities[0][~floating].median()


def test_sizes_must_agree() -> None:
    images, cameras, dense = _views(2)
    with pytest.raises(ValueError, match="images' size"):
        surface_gaussians(images[..., :-1], cameras, dense)
