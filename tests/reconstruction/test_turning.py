"""A camera that only turned is recognised; one that moved is not taken for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r.reconstruction.findings import only_turns
from nas3r.reconstruction.motion import matched_homography, measure_motion, thumbnail
from nas3r.reconstruction.turning import explained_by_turning
from two_layer_world import World, texture


def turned(image, right, down=0.0, roll=0.0, focal=1.0):
    """What a camera sees that turned by so many degrees; its edges are cut off."""
    height, width = image.shape[:2]
    k = np.array([[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1.0]])
    a, b, c = np.deg2rad([right, down, roll])
    y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    h = k @ y @ x @ z @ np.linalg.inv(k)
    coefficients = (h / h[2, 2]).ravel()[:8].tolist()
    view = Image.fromarray(image).transform(
        (width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    m, n = int(0.15 * width), int(0.15 * height)
    return np.asarray(view)[n:-n, m:-m]


def grey(image):
    small = Image.fromarray(image).resize((128, 128), Image.Resampling.BOX).convert("L")
    return np.asarray(small, np.float32) / 255


def batch(images):
    return torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) / 255.0 for image in images])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("angles", [(4, 0, 0), (0, 3, 0), (2, -2, 3), (-5, 2, -2), (0, 0, 5)])
@pytest.mark.parametrize("focal", [0.7, 1.5])
def test_turning_is_explained(seed, angles, focal):
    image = texture(seed, 360, 480)
    angles = [angle / focal for angle in angles]
    part = explained_by_turning(
        grey(turned(image, 0, focal=focal)), grey(turned(image, *angles, focal=focal))
    )
    assert part is not None
    assert part > 0.9


def test_zoom_and_exposure_are_explained():
    image = texture(5, 360, 480)
    zoomed = np.asarray(Image.fromarray(image[18:-18, 24:-24]).resize((480, 360)))
    part = explained_by_turning(grey(image), grey((zoomed * 0.8).astype(np.uint8)))
    assert part is not None
    assert part > 0.9


def test_parallax_is_not():
    for seed in range(4):
        world = World(seed=10 * seed)
        parts = [explained_by_turning(grey(world.frame(0)), grey(world.frame(x))) for x in (6, 12)]
        assert max(part for part in parts if part is not None) < 0.8


def test_pictures_without_texture_say_nothing():
    assert explained_by_turning(np.full((128, 128), 0.5), np.full((128, 128), 0.5)) is None


def test_sets_of_pictures():
    image, world = texture(7, 360, 480), World()
    assert only_turns(batch([turned(image, 3 * i - 6, i - 2, i) for i in range(5)]))
    assert only_turns(batch([image[7 * i : 300 + 7 * i, 17 * i : 384 + 17 * i] for i in range(5)]))
    assert not only_turns(batch([world.frame(6 * i) for i in range(5)]))


@pytest.mark.parametrize("angles", [(3, 0, 0), (2, 2, 2)])
def test_thumbnails_give_the_homography_and_no_parallax(angles):
    image = texture(3, 360, 480)
    a, b = thumbnail(turned(image, 0)), thumbnail(turned(image, *angles))
    h = matched_homography(a, b)
    assert h is not None
    assert h[2, 2] == 1
    # The middle moves by the angle: a pixel of a thumbnail is 1/64 of what is seen of the width.
    expected = -np.tan(np.deg2rad(angles[0])) / 0.7 * 2
    assert h[0, 2] == pytest.approx(expected, abs=0.03)
    assert measure_motion(a, b).parallax < 0.4 / 64
