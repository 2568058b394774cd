"""Images on relief: what one camera sees is found where the other one shows it, or is known to be hidden."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nas3r.geometry import sample_maps, so3_exp
from nas3r.matching.grid import cell_centers
from nas3r.matching.relief import (
    SeenFrom,
    Surfaces,
    followed,
    random_camera,
    random_surfaces,
    relief_pairs,
    rendered,
)


def _images(n: int = 6, side: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return F.avg_pool2d(torch.rand(n, 3, side + 8, side + 8), 9, 1).mul(4).sub(1.5).clamp(0, 1)


def _scene(n: int = 6) -> tuple[Surfaces, SeenFrom, torch.Tensor]:
    torch.manual_seed(1)
    surfaces = random_surfaces(_images(n))
    return surfaces, random_camera(surfaces), cell_centers(16, 16, surfaces.inverse).expand(n, -1, -1)


def _wall_and_square() -> Surfaces:
    """A wall at depth 2, and a square at depth 1 in front of its middle fifth."""
    inverse = torch.stack([torch.full((64, 64), 0.5), torch.ones(64, 64)])[None]
    square = -torch.ones(64, 64)
    square[26:38, 26:38] = 1
    there = torch.stack([torch.ones(64, 64), square])[None]
    colours = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)])[None]
    return Surfaces(inverse, there, colours, beyond=torch.full((1, 3, 64, 64), 0.5))


def _beside(x: float) -> SeenFrom:
    """Half a unit of the plane at depth 1 is half an image wide."""
    tangent = torch.full((1, 2), 0.5)
    return SeenFrom(torch.eye(3)[None], torch.tensor([[x, 0.0, 0.0]]), tangent, tangent)


def test_the_same_camera_sees_the_same():
    surfaces, camera, places = _scene()
    first = camera.first()
    found, seen = followed(surfaces, first, first, places)
    torch.testing.assert_close(found, places, atol=1e-5, rtol=0)
    assert seen.all()
    alone = replace(surfaces, there=surfaces.there.clone().index_fill_(1, torch.tensor([1, 2]), -1.0))
    torch.testing.assert_close(rendered(alone, first), surfaces.colours[:, 0], atol=1e-4, rtol=0)


def test_what_is_seen_is_found_again_where_it_came_from():
    surfaces, second, places = _scene(12)
    first = second.first()
    for source, target in ((first, second), (second, first)):
        found, seen = followed(surfaces, source, target, places)
        back, seen_back = followed(surfaces, target, source, found)
        assert 0.3 < seen.float().mean() < 0.95
        assert seen_back[seen].float().mean() > 0.98  # but for those that are found at the very edge
        both = seen & seen_back
        assert (back - places)[both].abs().max() < 0.011


def test_what_is_seen_looks_the_same_in_both_images():
    surfaces, second, places = _scene(12)
    first = second.first()
    found, seen = followed(surfaces, first, second, places)
    one, other = (
        sample_maps(rendered(surfaces, camera)[:, None], xy[:, None])[:, 0]
        for camera, xy in ((first, places), (second, found))
    )
    off = (one - other).abs().mean(1)
    assert off[seen].median() < 0.02
    assert off[seen].quantile(0.9) < 0.1
    assert off[~seen].median() > 0.1


def test_what_stands_behind_the_foreground_is_hidden():
    surfaces, beside = _wall_and_square(), _beside(0.3)
    first = beside.first()
    # From there the square moves by 0.3 of the image to the left, and the wall behind it by 0.15.
    places = torch.tensor([[[0.5, 0.5], [0.3, 0.5], [0.7, 0.5], [0.05, 0.5], [0.9, 0.1]]])
    found, seen = followed(surfaces, first, beside, places)
    expected = torch.tensor([[[0.2, 0.5], [0.15, 0.5], [0.55, 0.5], [-0.1, 0.5], [0.75, 0.1]]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert seen.tolist() == [[True, False, True, False, True]]
    image = rendered(surfaces, beside)[0, 0]
    assert image[32, 12] == 1  # the square
    assert image[32, 32] == 0  # the wall that it hid
    assert image[32, 60] == 0.5  # what the first camera does not see


def test_a_turned_camera_needs_no_relief():
    surfaces, camera, places = _scene()
    turned = SeenFrom(
        so3_exp(torch.tensor([0.05, 0.1, 0.3]).expand(6, 3)),
        torch.zeros(6, 3),
        camera.first_tangent,
        camera.first_tangent,
    )
    found, _ = followed(surfaces, turned.first(), turned, places)
    points = F.pad((2 * places - 1) * camera.first_tangent[:, None], (0, 1), value=1.0) @ turned.rotation
    expected = (points[..., :2] / points[..., 2:] / camera.first_tangent[:, None] + 1) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (32, 48)])
def test_pairs_hold_views_of_the_size_of_images(size):
    pairs = relief_pairs(torch.rand(4, 3, *size), cell_centers(4, 6, torch.zeros(())))
    assert pairs.first.shape == pairs.second.shape == (4, 3, *size)
    assert pairs.in_second.shape == pairs.in_first.shape == (4, 24, 2)
    for image in (pairs.first, pairs.second):
        assert image.min() >= 0
        assert image.max() <= 1
    assert pairs.in_second[pairs.seen_in_second].isfinite().all()
