"""Focal lengths that nothing in the file contradicts are held against what the pictures show."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from nas3r.io.images import list_images
from nas3r.models import load
from nas3r.reconstruction import ReconstructOptions, reconstruct
from nas3r.reconstruction.focal_check import against_pictures, contradicted
from nas3r.reconstruction.focal_lengths import known_intrinsics
from nas3r.reconstruction.views import SizeRule, plan_views, read_views

EXIF, FOCAL_35MM = 0x8769, 41989
TRUE = 27  # mm: 458 pixels of 360 x 640


@pytest.fixture(scope="module")
def model():
    return load(None, "cpu")


def with_exif(folder: Path, shared_data: Path, mm: int) -> Path:
    folder.mkdir()
    for number, file in enumerate(list_images(shared_data / "fox" / "images")[:8:2]):
        image = Image.open(file)
        exif = Image.Exif()
        exif.get_ifd(EXIF)[FOCAL_35MM] = mm
        image.save(folder / f"{number}.jpg", exif=exif, quality=95)
    return folder


def views_of(folder: Path, model):
    options = ReconstructOptions(views=4)
    return read_views(plan_views(folder, options, SizeRule.of(model.config, options)))


@pytest.mark.slow
def test_a_lone_wrong_focal_length_is_overruled(shared_data, model, tmp_path):
    """177 mm where 28 was meant, and nothing in the file says otherwise."""
    photos = with_exif(tmp_path / "photos", shared_data, 177)
    result = reconstruct(photos, ReconstructOptions(), weights=model)
    assert result.record.focal == "predicted"
    (note,) = [note for note in result.record.notes if "177 mm" in note]
    assert "does not fit what the pictures show" in note
    assert 0.7 * TRUE < float(note.split("about ")[1].split()[0]) < 1.4 * TRUE
    assert result.photo_cameras[0].intrinsics[0, 0] == pytest.approx(458, rel=0.3)


@pytest.mark.parametrize("mm", [TRUE, 20, 40])
def test_right_ones_and_nearly_right_ones_are_kept(mm, shared_data, model, tmp_path):
    views = views_of(with_exif(tmp_path / "photos", shared_data, mm), model)
    known = known_intrinsics(model, views.context, None)
    assert known.origin == "exif"
    assert against_pictures(model, views.context, views.context_images, known) is known


def test_what_the_user_gives_is_questioned_and_kept(shared_data, model, tmp_path):
    views = views_of(with_exif(tmp_path / "photos", shared_data, TRUE), model)
    known = known_intrinsics(model, views.context, 177)
    questioned = against_pictures(model, views.context, views.context_images, known)
    assert questioned.origin == "given"
    assert torch.equal(questioned.matrices, known.matrices)
    (note,) = questioned.notes
    assert "177 mm that was given does not fit" in note
    assert "it is used" in note


def test_two_views_and_nothing_told_ask_nothing(shared_data, model, tmp_path, monkeypatch):
    views = views_of(with_exif(tmp_path / "photos", shared_data, 177), model)

    def never(*unused, **unused_too):
        raise AssertionError("the pictures were asked")

    monkeypatch.setattr("nas3r.reconstruction.focal_check.explained", never)
    known = known_intrinsics(model, views.context, None)
    assert against_pictures(model, views.context[:2], views.context_images[:2], known) is known
    untold = replace(known, matrices=None, origin="predicted")
    assert against_pictures(model, views.context, views.context_images, untold) is untold


def test_both_must_be_off():
    assert contradicted(6.3, 1.3)
    assert contradicted(1 / 6.3, 1.3)
    assert not contradicted(6.3, 1.0)  # as well explained: matches say little
    assert not contradicted(2.0, 1.3)
