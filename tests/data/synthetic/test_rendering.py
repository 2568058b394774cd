"""Images and depth of synthetic worlds: compiled renderer against the readable one, and against geometry."""

from dataclasses import replace

import pytest
import torch

from nas3r.data.synthetic import (
    FAMILIES,
    SyntheticConfig,
    SyntheticScenes,
    render_views,
    sample_paths,
    sample_worlds,
)
from nas3r.geometry import Cameras, pixel_grid, project, unproject

SIZE = 24


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_and_readable_renderers_agree(family: str) -> None:
    config = SyntheticConfig(families={family: 1.0}, frames=3)
    worlds = sample_worlds([11, 12], config)
    cameras = sample_paths(worlds, config=config)
    worlds = worlds.to(torch.float64)
    cameras = Cameras(cameras.world_from_camera.double(), cameras.intrinsics.double())
    compiled = render_views(worlds, cameras, SIZE, SIZE, backend="compiled")
    readable = render_views(worlds, cameras, SIZE, SIZE, backend="torch")
    assert compiled.depth is not None
    assert readable.depth is not None
    # The same formulas in float64, summed in another order. Rays that graze an edge may fall on either side
    # of it: a few pixels of 3,456.
    differs = (compiled.images - readable.images).abs().amax(2) > 1e-6
    assert differs.float().mean() < 2e-3
    same = torch.isclose(compiled.depth, readable.depth, rtol=1e-6, atol=1e-6)
    assert (~same).float().mean() < 2e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_and_cameras_agree_between_views(family: str) -> None:
    """A point seen by one view lies on, or behind, what the other view sees in its direction."""
    scene = SyntheticScenes(1, SyntheticConfig(families={family: 1.0}, frames=8), 1)[0]
    views = scene.read([2, 4], 64, 64)
    assert views.depth is not None
    grid = pixel_grid(64, 64).reshape(1, 1, -1, 2)
    first = Cameras(views.cameras.world_from_camera[:, :1], views.cameras.intrinsics[:, :1])
    points = unproject(first, grid, views.depth[None, :1].flatten(2))[0, 0]
    points = points[views.depth[0].flatten() > 0]
    xy, z = project(views.cameras, points[None])
    column, row = (xy[0, 1] * 64).floor().long().unbind(-1)
    inside = (z[0, 1] > 0) & (column >= 1) & (column < 63) & (row >= 1) & (row < 63)
    column, row, z = column[inside], row[inside], z[0, 1][inside]
    # Depth between pixel centres is not known: the range over the 3 x 3 pixels around the place.
    known = torch.where(views.depth[1] > 0, views.depth[1], torch.inf)
    around = known.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2)[row - 1, column - 1]
    behind = z > around.amin(1) * 0.99
    fits = behind & (z < around.amax(1) * 1.01)
    assert inside.sum() > 500
    assert behind.float().mean() > 0.99  # nothing floats before what is seen; 1 %: edges thinner than a pixel
    assert fits.float().mean() > 0.8  # the rest is hidden by nearer things


def test_supersampling_averages() -> None:
    """Supersampling is close to averaging a finer image."""
    config = SyntheticConfig(frames=2)
    worlds = sample_worlds([5, 6, 7], config)
    cameras = sample_paths(worlds, config=config)
    smooth = render_views(worlds, cameras, 32, 32, supersampling=2).images
    fine = render_views(worlds, cameras, 64, 64, supersampling=1).images
    averaged = torch.nn.functional.avg_pool2d(fine.flatten(0, 1), 2).unflatten(0, fine.shape[:2])
    # Colours are averaged before the display curve in one and after it in the other, and detail below the
    # pixel is filtered in the textures: a likeness, not an identity. Unrelated pixels differ by 0.2.
    assert (smooth - averaged).abs().mean() < 0.02


def test_worlds_and_cameras_must_fit() -> None:
    worlds = sample_worlds([0, 1])
    cameras = sample_paths(worlds, frames=2)
    with pytest.raises(ValueError, match="2 worlds but cameras of 1"):
        render_views(worlds, Cameras(cameras.world_from_camera[:1], cameras.intrinsics[:1]), 8, 8)
    with pytest.raises(ValueError, match="expected the same"):
        render_views(worlds.to(torch.float64), cameras, 8, 8)
    with pytest.raises(ValueError, match="backend"):
        render_views(worlds, cameras, 8, 8, backend="magic")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("stress", "changes_depth"),
    [
        ({"distortion": 0.3}, True),
        ({"exposure": 2.0}, False),
        ({"noise": 0.1}, False),
        ({"blur": 0.03}, False),
        ({"moving": 1.0}, True),
    ],
)
def test_each_stress_changes_what_it_should(stress: dict[str, float], changes_depth: bool) -> None:
    config = SyntheticConfig(families={"tabletop": 1.0}, frames=12)
    plain = SyntheticScenes(2, config, 4)[1].read([0, 11], 32, 32)
    scene = SyntheticScenes(2, replace(config, **stress), 4)[1]
    stressed = scene.read([0, 11], 32, 32)
    assert (plain.images - stressed.images).abs().mean() > 0.005
    assert torch.equal(scene.read([0, 11], 32, 32).images, stressed.images)  # noise is repeatable too
    assert torch.equal(plain.depth, stressed.depth) != changes_depth
    # The same way through the world; its length is a share of the depth in view, which a bent lens changes.
    assert torch.allclose(plain.cameras.world_from_camera, stressed.cameras.world_from_camera, atol=2e-3)


def test_static_worlds_do_not_move() -> None:
    worlds = sample_worlds([3], SyntheticConfig())
    cameras = sample_paths(worlds, frames=1)
    early, late = (
        render_views(worlds, cameras, 16, 16, time=torch.full((1, 1), t)).images for t in (0.0, 50.0)
    )
    assert torch.equal(early, late)
