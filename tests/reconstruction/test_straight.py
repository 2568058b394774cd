"""Photos by lenses that bend straight lines, taken to those of lenses that do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r.geometry import Cameras
from nas3r.io.images import Resize, load_image
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.straight import straight_lenses, zoomed

BARREL, CUSHION = -0.2, 0.2


def photo(name: str, camera: str | None = None, file: Path | None = None) -> View:
    return View(name, name, file, None, Resize(640, 480, 128, 96, exact=True), 1.0, camera=camera)


def cameras(*focal: float) -> Cameras:
    intrinsics = torch.eye(3).repeat(1, len(focal), 1, 1)
    intrinsics[..., :2, 2] = 0.5
    intrinsics[0, :, 0, 0] = torch.tensor(focal)
    intrinsics[0, :, 1, 1] = torch.tensor(focal) * 640 / 480
    return Cameras(torch.eye(4).repeat(1, len(focal), 1, 1), intrinsics)


def test_photos_without_a_place_have_the_lens_of_their_camera() -> None:
    views = [photo("a", "A"), photo("b", "B")]
    others = [*views, photo("c", "A"), photo("d", "B"), photo("e", "C")]
    lenses = straight_lenses(others, views, cameras(0.7, 1.4), [BARREL, 0.0])
    assert [lens is not None for lens in lenses] == [True, False, True, False, False]
    assert lenses[0] is not None
    assert lenses[0].distortion.coefficients == (BARREL,)
    assert float(lenses[0].intrinsics[0, 0]) == pytest.approx(0.7)


def test_what_is_told_of_a_focal_length_is_told_of_the_straight_photo() -> None:
    views = [photo("a"), photo("b", "B")]
    both = cameras(0.7, 1.4)
    lenses = straight_lenses(views, views, both, [CUSHION, 0.0])
    known = KnownIntrinsics(both.intrinsics, "exif")
    straight = zoomed(known, lenses).matrices
    assert straight is not None
    # Beyond the border of what a cushion shows there is nothing: the straight photo is cut to what is there.
    assert straight[0, 0, 0, 0] > 1.05 * 0.7
    assert straight[0, 1, 0, 0] == both.intrinsics[0, 1, 0, 0]
    torch.testing.assert_close(straight[0, :, :2, 2], both.intrinsics[0, :, :2, 2])
    assert zoomed(KnownIntrinsics(None, "predicted"), lenses).matrices is None


def test_the_straight_photo_is_what_is_loaded_and_exported(tmp_path: Path) -> None:
    """A line that a barrel bends is straight in what is written."""
    f, line = 0.7 * 640, np.zeros((480, 640, 3), np.uint8)
    flat = np.stack([np.full(999, 0.4), np.linspace(-0.7, 0.7, 999)], 1)  # on a line beside the axis
    bent = f * flat * (1 + BARREL * np.square(flat).sum(1))[:, None] + (320, 240)
    x = np.interp(np.arange(480) + 0.5, bent[:, 1], bent[:, 0])
    line[np.abs(np.arange(640)[None] + 0.5 - x[:, None]) < 2] = 255
    Image.fromarray(line).save(tmp_path / "bent.png")
    view = photo("bent.png", file=tmp_path / "bent.png")
    (lens,) = straight_lenses([view], [view], cameras(0.7), [BARREL])
    straight = replace(view, straightening=lens)
    (tmp_path / "out").mkdir()
    straight.export(tmp_path / "out")
    written = load_image(tmp_path / "out" / "bent.png")
    np.testing.assert_array_equal(written, straight.load())

    def spread(image: np.ndarray) -> float:
        rows = image[40:-40, :, 0].astype(float)
        return float(np.ptp((rows * (np.arange(640) + 0.5)).sum(1) / rows.sum(1)))

    assert spread(line) > 6
    assert spread(written) < 1.5  # the line was drawn in whole pixels
