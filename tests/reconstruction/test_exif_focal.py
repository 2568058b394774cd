"""What EXIF data tell of the focal length is checked against the rest of them."""

import math

import pytest
from PIL import Image

from nas3r.reconstruction import ReconstructOptions, reconstruct
from nas3r.reconstruction.exif_focal import FULL_FRAME, told_focal

EXIF, FOCAL_35MM, FOCAL, ZOOM, WIDTH, HEIGHT = 0x8769, 41989, 37386, 41988, 40962, 40963
X_RESOLUTION, Y_RESOLUTION, UNIT = 41486, 41487, 41488


def photo(path, size=(160, 120), **tags):
    names = {
        "equivalent": FOCAL_35MM, "focal": FOCAL, "zoom": ZOOM, "width": WIDTH, "height": HEIGHT,
        "x": X_RESOLUTION, "y": Y_RESOLUTION, "unit": UNIT,
    }  # fmt: skip
    exif = Image.Exif()
    settings = exif.get_ifd(EXIF)
    for name, value in tags.items():
        settings[names[name]] = value
    Image.radial_gradient("L").resize(size).convert("RGB").save(path, exif=exif)
    return told_focal(path, *size)


def test_a_phone(tmp_path):
    assert photo(tmp_path / "a.jpg", equivalent=26, focal=4.25, width=4032, height=3024).mm == 26
    assert photo(tmp_path / "a.jpg", (120, 160), equivalent=26, width=4032, height=3024).mm == 26  # upright
    assert photo(tmp_path / "a.jpg", equivalent=26).mm == 26
    assert photo(tmp_path / "a.jpg").mm is None


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        # What a library for phones wrote: 177 where 28 was meant.
        ({"equivalent": 177, "focal": 4.3}, "tells 177 mm, which needs a sensor of 1.1 mm"),
        ({"equivalent": 2, "focal": 6.0}, "needs a sensor of"),
        ({"equivalent": 1000, "focal": 5.4}, "needs a sensor of"),
        (
            {"equivalent": 26, "width": 4032, "height": 2268},
            "was cropped since it was taken with 4032 x 2268",
        ),
        ({"equivalent": 26, "width": 6000, "height": 4000}, "was cropped"),
        (
            {"equivalent": 80, "focal": 50, "width": 6000, "height": 4500, "x": 6000 / 36 * 25.4, "unit": 2},
            "by its sensor",
        ),
    ],
)
def test_what_contradicts_itself_is_not_believed(tags, says, tmp_path):
    told = photo(tmp_path / "a.jpg", **tags)
    assert told.mm is None
    assert told.doubt is not None
    assert says in told.doubt


@pytest.mark.parametrize(("unit", "mm"), [(2, 25.4), (3, 10.0), (4, 1.0), (5, 0.001)])
def test_makers_that_tell_the_resolution_of_the_sensor(unit, mm, tmp_path):
    per_unit = 5472 / 23.5 * mm  # a sensor 23.5 mm wide
    told = photo(tmp_path / "a.jpg", focal=30, width=5472, height=4104, x=per_unit, y=per_unit, unit=unit)
    assert told.mm == pytest.approx(30 * FULL_FRAME / math.hypot(23.5, 23.5 * 3 / 4), rel=1e-3)


def test_digital_zoom_is_no_small_sensor(tmp_path):
    assert photo(tmp_path / "a.jpg", equivalent=260, focal=6.0, zoom=5.0).mm == 260


@pytest.mark.parametrize("value", [0, -5, float("inf"), 10**9])
def test_numbers_that_are_none(value, tmp_path):
    for name in ("focal", "width", "x", "zoom"):
        told = photo(tmp_path / "a.jpg", equivalent=26, **{name: min(value, 2**31 - 1) if value > 0 else 0})
        assert told.mm in (26, None)


def test_photos_that_were_cropped_are_predicted_and_said(photos, weights):
    for path in photos.iterdir():
        exif = Image.Exif()
        exif.get_ifd(EXIF).update({FOCAL_35MM: 28, WIDTH: 4032, HEIGHT: 1512})
        Image.open(path).save(path, exif=exif, quality=95)
    record = reconstruct(photos, ReconstructOptions(), weights=weights).record
    assert record.focal == "predicted"
    assert any("was cropped since it was taken" in note and "--focal-35mm" in note for note in record.notes)
