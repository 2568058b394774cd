"""Panoramas and black bars are seen; ordinary pictures are not taken for them."""

import json

import numpy as np
import pytest
from PIL import Image

from nas3r.cli.main import main
from nas3r.io.video import write_video
from nas3r.reconstruction import ReconstructOptions, reconstruct
from nas3r.reconstruction.framing import black_bars, is_panorama
from nas3r.reconstruction.motion import thumbnail
from two_layer_world import World, texture


def panorama(seed: int, width: int = 512) -> np.ndarray:
    """All directions of a world of smooth colours, which are functions of the direction alone."""
    rng = np.random.default_rng(seed)
    height = width // 2
    azimuth = (np.arange(width) + 0.5) / width * 2 * np.pi
    polar = (np.arange(height)[:, None] + 0.5) / height * np.pi
    rays = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar) + 0 * azimuth], -1
    )
    image = sum(
        np.sin(rays @ (scale * rng.normal(size=(3, 3))) + rng.uniform(0, 6, 3)) for scale in (1, 3, 9, 20)
    )
    return ((image / 4 + 1) * 127).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_panoramas_are_seen(seed):
    assert is_panorama(panorama(seed))


@pytest.mark.parametrize("seed", range(6))
def test_wide_pictures_are_no_panoramas(seed):
    assert not is_panorama(texture(seed, 256, 512))
    assert not is_panorama(panorama(seed)[:, :500])
    assert not is_panorama(panorama(seed)[64:192, :256])


def barred(image: np.ndarray, rows: int, columns: int = 0, level: int = 0) -> np.ndarray:
    image = image.copy()
    image[:rows], image[len(image) - rows :] = level, level
    image[:, :columns], image[:, image.shape[1] - columns :] = level, level
    return image


@pytest.mark.parametrize(("rows", "columns"), [(12, 0), (0, 20), (8, 0)])
@pytest.mark.parametrize("level", [0, 16])
def test_bars_are_measured(rows, columns, level):
    world = World()
    thumbnails = [thumbnail(barred(world.frame(5 * i), rows, columns, level)) for i in range(4)]
    found = black_bars(thumbnails)
    assert found == pytest.approx(2 * rows / 120 + 2 * columns / 160, abs=0.05)


def test_what_is_no_bar():
    world = World()
    plain = [thumbnail(world.frame(5 * i)) for i in range(4)]
    assert black_bars(plain) is None
    one = [thumbnail(barred(world.frame(0), 12)), *plain[1:]]
    assert black_bars(one) is None  # a dark sky in one of them
    assert black_bars([np.zeros((64, 64), np.float32)] * 3) is None
    night = [thumbnail((world.frame(5 * i) * 0.1).astype(np.uint8)) for i in range(4)]
    assert black_bars(night) is None


def test_notes_name_bars_and_panoramas(weights, tmp_path):
    world = World()
    views = [barred(world.frame(6 * i), 12) for i in range(4)]
    notes = reconstruct(views, ReconstructOptions(), weights=weights).record.notes
    assert any("black bars (1" in note for note in notes)
    around = [np.roll(panorama(1), 8 * i, 1) for i in range(4)]
    notes = reconstruct(around, ReconstructOptions(), weights=weights).record.notes
    assert any("360-degree panorama" in note for note in notes)


def test_where_photos_come_from_is_in_the_result(photos, weights, tmp_path):
    result = reconstruct(photos, ReconstructOptions(), weights=weights)
    result.save(tmp_path / "out", exports=[])
    views = json.loads((tmp_path / "out" / "reconstruction.json").read_text())["views"]
    assert [view["source"] for view in views] == [str(photos / f"photo_{i}.jpg") for i in (1, 2, 3, 4)]


def test_frames_of_a_video_say_where_they_come_from(weights, tmp_path):
    pytest.importorskip("av")
    world = World()
    write_video(tmp_path / "a.mp4", [world.frame(6 * i) for i in range(4)], 24)
    result = reconstruct(tmp_path / "a.mp4", ReconstructOptions(), weights=weights)
    assert [view.origin for view in result.views] == [f"{tmp_path / 'a.mp4'}, frame {i}" for i in range(4)]


def test_the_console_says_at_what_size_photos_were_seen(photos, weights, tmp_path, capsys, monkeypatch):
    arguments = ["reconstruct", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "av" else object())
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "pictures of 160 x 120 pixels, seen by the network at 72 x 56" in said
    assert "no fly-through was made" in said


def test_files_that_are_not_read_are_named_in_folders(photos, weights, tmp_path, caplog, capsys):
    for name in ("a.dng", "b.dng", "photos.zip", "notes.txt"):
        (photos / name).write_bytes(b"II*\0")
    reconstruct(photos, ReconstructOptions(), weights=weights)
    assert "2 files are ignored, e.g. a.dng: a raw photo; develop it" in caplog.text
    assert "photos.zip: an archive" in caplog.text
    only = tmp_path / "raw"
    only.mkdir()
    (only / "a.dng").write_bytes(b"II*\0")
    assert main(["reconstruct", str(only), "-o", str(tmp_path / "out"), "--weights", str(weights)]) == 2
    assert "holds no image files, but 1 such as a.dng: a raw photo" in capsys.readouterr().err


def test_exported_photos_are_as_they_were_read(photos, weights, tmp_path):
    wide = photos / "photo_2.jpg"
    exif = Image.Exif()
    exif[274] = 3
    Image.open(wide).rotate(180).save(wide, quality=95, exif=exif)
    result = reconstruct(photos, ReconstructOptions(), weights=weights)
    result.save(tmp_path / "out", exports=[])
    with Image.open(tmp_path / "out" / "images" / "photo_2.jpg") as image:
        assert image.getexif().get(274, 1) == 1
        assert image.size == (160, 120)
