"""Photos of every kind, and files that only pretend to be photos."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas3r.io import images
from nas3r.io.images import (
    Resize,
    decode_image,
    image_size,
    is_depth_like,
    list_images,
    load_image,
    save_image,
)

CORNERS = np.zeros((16, 24, 3), dtype=np.uint8)
CORNERS[:8, :8] = (255, 0, 0)  # red at the top left
CORNERS[8:, 16:] = (0, 0, 255)  # blue at the bottom right


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm", ".avif"])
def test_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(gradient(32, 48)).save(path)
    image = load_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (32, 48, 3)
    # lossy formats at default quality stay within a few grey levels on a smooth ramp
    assert np.abs(image[..., :2].astype(int) - gradient(32, 48)[..., :2]).mean() < 6
    assert image_size(path) == (48, 32)


def test_heic_is_read_and_upright(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    path = tmp_path / "phone.heic"
    exif = Image.Exif()
    exif[274] = 6
    photo = Image.fromarray(np.repeat(np.repeat(CORNERS, 8, 0), 8, 1))
    photo.info["exif"] = exif.tobytes()  # from here the writer takes the rotation that the file records
    photo.save(path, quality=95)
    image = load_image(path)
    assert image.shape == (192, 128, 3)
    assert image[20, 108, 0] > 180  # the red corner has gone to the top right
    assert image_size(path) == (128, 192)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
        (9, lambda a: a),
    ],
)
def test_exif_orientation(tmp_path: Path, orientation: int, upright) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(CORNERS).save(path, exif=exif)
    expected = upright(CORNERS)
    np.testing.assert_array_equal(load_image(path), expected)
    assert image_size(path) == (expected.shape[1], expected.shape[0])


def test_broken_exif_does_not_cost_the_photo() -> None:
    broken, plain = io.BytesIO(), io.BytesIO()
    Image.fromarray(CORNERS).save(broken, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    Image.fromarray(CORNERS).save(plain, "JPEG")
    expected = decode_image(plain.getvalue(), "photo")
    np.testing.assert_array_equal(decode_image(broken.getvalue(), "photo"), expected)


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([CORNERS, np.full(CORNERS.shape[:2], 255, np.uint8)])
    rgba[0, 0] = (255, 0, 0, 0)
    rgba[0, 1] = (0, 0, 0, 51)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [204, 204, 204]
    assert image[1, 1].tolist() == [255, 0, 0]


def test_grey_alpha_palette_transparency_and_bilevel(tmp_path: Path) -> None:
    grey = np.full((4, 4), 100, np.uint8)
    Image.fromarray(np.dstack([grey, np.full((4, 4), 0, np.uint8)]), mode="LA").save(tmp_path / "la.png")
    assert (load_image(tmp_path / "la.png") == 255).all()
    Image.fromarray(CORNERS).quantize(8).save(tmp_path / "p.gif")
    np.testing.assert_array_equal(load_image(tmp_path / "p.gif"), CORNERS)
    palette = Image.fromarray(CORNERS).quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert load_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]
    Image.fromarray(grey > 50).save(tmp_path / "one.png")
    assert (load_image(tmp_path / "one.png") == 255).all()
    Image.fromarray(grey).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert np.abs(load_image(tmp_path / "cmyk.jpg").astype(int) - 100).max() <= 2


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    samples = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(samples).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]
    assert is_depth_like(tmp_path / "a.png")
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535 \x00\x00\xff\xff")
    assert load_image(tmp_path / "a.pgm")[0, :, 2].tolist() == [0, 255]
    (tmp_path / "rgb.png").write_bytes(
        _png(1, 1, bit_depth=16, colour_type=2, row=b"\xff\xff\x80\x00\x00\x00")
    )
    assert load_image(tmp_path / "rgb.png")[0, 0].tolist() == [255, 128, 0]
    assert not is_depth_like(tmp_path / "rgb.png")


def _png(width: int, height: int, bit_depth: int, colour_type: int, row: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + row for _ in range(min(height, 4))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gradient(64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


def _float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello, I am not an image at all", "not an image"),
        (_jpeg()[: len(_jpeg()) // 2], "(?i)truncated"),
        (_jpeg()[:40], "image"),
        (_png(4, 4, 8, 2, b"\x00" * 12)[:-30], "image"),
        (_png(60000, 60000, 8, 2, b"\x00" * 16), "megapixels"),
        (_png(15000, 12000, 8, 0, b"\x00" * 16), "megapixels"),
        (_float_tiff(), "8 or 16 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not an image"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        load_image(path)
    assert str(path) in str(error.value)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_image(tmp_path / "nothing.jpg")
    with pytest.raises(IsADirectoryError):
        load_image(tmp_path)


def test_heic_without_its_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ModuleNotFoundError("pillow_heif")

    monkeypatch.setattr(images, "_heif_opener", absent)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40)
    with pytest.raises(ModuleNotFoundError, match=r"nas3r\[heic\]"):
        load_image(path)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_never_raise_anything_else(position: int, noise: bytes) -> None:
    data = bytearray(_png(8, 4, 8, 2, bytes(range(24))) if position % 2 else _jpeg())
    start = position % len(data)
    data[start : start + len(noise)] = noise
    with contextlib.suppress(ValueError):
        assert decode_image(bytes(data), "damaged").ndim == 3


def test_images_are_listed_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10.png", "frame9.png", "frame2.PNG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["frame2.PNG", "frame9.png", "frame10.png"]


def test_saving_round_trips_and_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_image(path, CORNERS)
    np.testing.assert_array_equal(load_image(path), CORNERS)
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    save_image(path, depth)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), depth)
    with pytest.raises(ValueError, match="uint8"):
        save_image(path, CORNERS.astype(np.float32))
    with pytest.raises(ValueError, match="suffix"):
        save_image(tmp_path / "a.exe", CORNERS)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_resize_equals_the_published_crop(reference_folder: Path) -> None:
    fixture = np.load(reference_folder / "modules" / "crop.npz")
    image = _fixture_image(reference_folder)
    for size, step in ((224, 7), (256, 8)):
        resize = Resize(640, 360, size, size)
        crop = resize.apply(image)[::step, ::step].transpose(2, 0, 1)
        np.testing.assert_array_equal(crop, fixture[f"crop{size}"])
        pixels = fixture["k0"] * np.array([[640], [360], [1]], dtype=np.float32)
        intrinsics = resize.apply_intrinsics(pixels)
        # only focal lengths: the published code leaves the principal point at 0.5 even where the crop cannot
        # be centred (odd margin); it rounds in float32
        focal = [0, 1], [0, 1]
        np.testing.assert_allclose(intrinsics[focal], fixture[f"k{size}"][focal], atol=2e-6)
        np.testing.assert_allclose(resize.undo_intrinsics(intrinsics), pixels, rtol=1e-6)


def _fixture_image(reference_folder: Path) -> np.ndarray:
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_checkpoint", reference_folder / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.unit("input/crop", 3 * 360 * 640).reshape(3, 360, 640)
    return ((values + 1) * 128).astype(np.uint8).transpose(1, 2, 0).copy()


sizes = st.integers(1, 3000)


@given(sizes, sizes, sizes, sizes)
def test_intrinsics_round_trip_through_resize(w0: int, h0: int, w: int, h: int) -> None:
    resize = Resize(w0, h0, w, h)
    K = torch.tensor([[500.0, 0.3, w0 / 2], [0, 480.0, h0 / 3], [0, 0, 1]], dtype=torch.float64)
    round_trip = resize.undo_intrinsics(resize.apply_intrinsics(K))
    # two 3x3 products in float64 whose entries span up to 3000 ** 2
    torch.testing.assert_close(round_trip, K, rtol=1e-9, atol=1e-6)


@given(sizes, sizes, st.integers(1, 600), st.integers(1, 600))
def test_the_scaled_image_covers_the_output(w0: int, h0: int, w: int, h: int) -> None:
    resize = Resize(w0, h0, w, h)
    scaled_width, scaled_height = resize.scaled_size
    assert scaled_width >= w
    assert scaled_height >= h
    assert scaled_width == w or scaled_height == h


def test_a_point_keeps_its_place_through_resize() -> None:
    image = np.zeros((300, 500, 3), np.uint8)
    image[140:160, 330:350] = 255  # centre at (340, 150)
    resize = Resize(500, 300, 80, 96)
    white = resize.apply(image)[..., 0].astype(float)
    ys, xs = np.mgrid[:96, :80] + 0.5
    found = np.array([(white * xs).sum(), (white * ys).sum()]) / white.sum()
    expected = (resize.matrix @ [340, 150, 1])[:2] * [80, 96]
    np.testing.assert_allclose(found, expected, atol=0.05)  # Lanczos ringing clipped at 0


def test_resize_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="24 x 16"):
        Resize(10, 10, 4, 4).apply(CORNERS)
    with pytest.raises(ValueError, match="positive"):
        Resize(10, 10, 0, 4)
