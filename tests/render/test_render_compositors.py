"""The compiled compositor against the dense reference: values and the gradients of every input."""

import pytest
import torch
from render_scenes import assert_close, degenerate_scenes, random_scene, values_and_gradients

from nas3r.render import render

# Relative to the largest value of each quantity. float32 projection and blending of a few dozen splats,
# summed over hundreds of pixels, lose 2 to 3 of its 7 digits; measured: up to 4e-5.
TOLERANCE = 2e-4

SCENES = degenerate_scenes()


def compare(gaussians, cameras, **options) -> None:
    expected = values_and_gradients(gaussians, cameras, dtype=torch.float64, backend="reference", **options)
    actual = values_and_gradients(gaussians, cameras, dtype=torch.float32, backend="cpu", **options)
    assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("seed", range(5))
def test_random_scenes(seed):
    compare(*random_scene(seed))


@pytest.mark.parametrize("name", SCENES)
def test_degenerate_scenes(name):
    compare(*SCENES[name]())


@pytest.mark.parametrize("name", ["equal depths", "opaque wall", "around the camera", "behind the camera"])
def test_median_depth(name):
    compare(*SCENES[name](), depth_mode="median")


@pytest.mark.parametrize(("stored", "evaluated"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, None), (4, 0)])
def test_spherical_harmonics_degrees(stored, evaluated):
    compare(*random_scene(1, sh_degree=stored), sh_degree=evaluated)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (8, 8), (17, 129), (64, 64)])
def test_image_sizes(height, width):
    compare(*random_scene(2, b=1, v=1, n=20), height=height, width=width)


@pytest.mark.parametrize(("b", "v"), [(1, 1), (3, 1), (1, 5)])
def test_batches_of_scenes_and_views(b, v):
    compare(*random_scene(3, b=b, v=v, n=20))


def test_a_batch_is_its_elements():
    gaussians, cameras = (x.to(torch.float32) for x in random_scene(4, b=3, v=2))
    together = render(gaussians, cameras, 16, 24).color
    for i in range(3):
        one = type(cameras)(cameras.world_from_camera[i : i + 1], cameras.intrinsics[i : i + 1])
        assert torch.equal(together[i : i + 1], render(gaussians.scene(i), one, 16, 24).color)


def test_many_splats_in_a_tile_and_early_ends():
    # Deep lists: most pixels end long before their list does.
    compare(*random_scene(5, b=1, v=1, n=2000), height=24, width=24)
