"""Photos in the forms that cameras, phones and editors write: the same picture, or a sentence."""

import io
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from nas3r.io.images import _heif_opener, image_size, load_image
from nas3r.reconstruction import ReconstructOptions, reconstruct

COLORS = np.zeros((32, 48, 3), np.uint8)
COLORS[:16, :24], COLORS[:16, 24:], COLORS[16:, :24], COLORS[16:, 24:] = (
    (200, 60, 60),
    (60, 180, 60),
    (60, 60, 200),
    (90, 90, 90),
)
RGB = Image.fromarray(COLORS)
GREY = np.asarray(RGB.convert("L").convert("RGB"))
WHITE = np.full_like(COLORS, 255)
LOSSY = 6  # mean difference in levels: blocks ring at edges


def close(path, expected, tolerance=1.0) -> None:
    found = load_image(path)
    assert found.shape == expected.shape
    assert image_size(path) == (expected.shape[1], expected.shape[0])
    assert np.abs(found.astype(int) - expected).mean() <= tolerance


def save(image, path, **options) -> None:
    try:
        image.save(path, **options)
    except (OSError, KeyError, ValueError) as error:
        pytest.skip(f"this Pillow cannot write it: {error}")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_print_colours(suffix, tmp_path):
    """CMYK; Adobe's JPEGs hold it inverted, and say so in a marker."""
    save(RGB.convert("CMYK"), tmp_path / f"a{suffix}", **({"quality": 98} if suffix == ".jpg" else {}))
    close(tmp_path / f"a{suffix}", COLORS, LOSSY)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", ".ppm"])
def test_16_bits(suffix, tmp_path):
    cv2.imwrite(str(tmp_path / f"a{suffix}"), COLORS[..., ::-1].astype(np.uint16) * 257)
    close(tmp_path / f"a{suffix}", COLORS)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", ".pgm"])
def test_16_bits_of_grey(suffix, tmp_path):
    cv2.imwrite(str(tmp_path / f"a{suffix}"), GREY[..., 0].astype(np.uint16) * 257)
    close(tmp_path / f"a{suffix}", GREY)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [0, 65535])
def test_16_bits_and_transparent(suffix, alpha, tmp_path):
    image = np.dstack([COLORS[..., ::-1].astype(np.uint16) * 257, np.full((32, 48), alpha, np.uint16)])
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    close(tmp_path / f"a{suffix}", COLORS if alpha else WHITE)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif", ".jp2", ".gif"])
def test_transparency_is_put_on_white(suffix, tmp_path):
    image = RGB.convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    save(image, tmp_path / f"a{suffix}")
    close(tmp_path / f"a{suffix}", WHITE)


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_with_a_transparent_entry(suffix, tmp_path):
    image = RGB.quantize(8)
    entry = image.getpixel((2, 2))
    save(image, tmp_path / f"a{suffix}", transparency=entry)
    expected = COLORS.copy()
    expected[:16, :24] = 255
    close(tmp_path / f"a{suffix}", expected)


def test_a_palette_with_half_transparent_entries(tmp_path):
    image = RGB.quantize(8)
    RGB.quantize(8).save(tmp_path / "a.png", transparency=bytes([128] * 8))
    close(tmp_path / "a.png", (np.asarray(image.convert("RGB")).astype(int) + 255) // 2)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_colour_that_means_transparent(mode, tmp_path):
    image, plain = RGB.convert(mode), np.asarray(RGB.convert(mode).convert("RGB")).copy()
    image.save(tmp_path / "a.png", transparency=image.getpixel((2, 2)))
    plain[:16, :24] = 255
    close(tmp_path / "a.png", plain)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "YCbCr", "LAB", "RGBX"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".gif", ".bmp", ".jp2", ".ppm"])
def test_other_modes(mode, suffix, tmp_path):
    if mode == "LAB":
        from PIL import ImageCms

        image = ImageCms.profileToProfile(
            RGB, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        assert image is not None
        expected = COLORS
        if suffix != ".tif":
            pytest.skip("only TIFF holds it")
    else:
        image = RGB.quantize(8).convert(mode) if mode in ("P", "PA") else RGB.convert(mode)
        expected = np.asarray(image.convert("RGB"))
    save(image, tmp_path / f"a{suffix}")
    close(tmp_path / f"a{suffix}", expected, LOSSY)


@pytest.mark.parametrize(
    "compression", ["jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"]
)
def test_compressed_tiffs(compression, tmp_path):
    save(RGB, tmp_path / "a.tif", compression=compression)
    close(tmp_path / "a.tif", COLORS, LOSSY)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_tiffs_in_which_zero_is_white(mode, tmp_path):
    image = RGB.convert(mode)
    save(image, tmp_path / "a.tif", tiffinfo={262: 0})
    close(tmp_path / "a.tif", np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "4:0:0"])
def test_avif(subsampling, tmp_path):
    save(RGB, tmp_path / "a.avif", subsampling=subsampling, quality=95)
    close(tmp_path / "a.avif", GREY if subsampling == "4:0:0" else COLORS, LOSSY)


def test_avif_of_10_bits(tmp_path):
    try:
        written = cv2.imwrite(
            str(tmp_path / "a.avif"), COLORS[..., ::-1].astype(np.uint16) * 4, [cv2.IMWRITE_AVIF_DEPTH, 10]
        )
    except (cv2.error, AttributeError):
        written = False
    if not written:
        pytest.skip("this OpenCV writes no AVIF")
    close(tmp_path / "a.avif", COLORS, LOSSY)


TURNS = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1), 8: np.rot90}


def with_orientation(orientation: int) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    RGB.save(buffer, "JPEG", exif=exif, quality=98)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
def test_avif_is_turned_once(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    save(RGB, tmp_path / "a.avif", exif=exif, quality=95)
    close(tmp_path / "a.avif", TURNS[orientation](COLORS), LOSSY)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist(orientation, tmp_path):
    (tmp_path / "a.jpg").write_bytes(with_orientation(orientation))
    close(tmp_path / "a.jpg", COLORS, LOSSY)


def test_several_pictures_in_one_photo(tmp_path):
    """Stereo cameras and phones write MPO: the photo, and a second one behind it."""
    save(RGB, tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[RGB.rotate(180)], quality=98)
    close(tmp_path / "a.mpo", COLORS, LOSSY)
    (tmp_path / "b.jpg").write_bytes(with_orientation(6) + with_orientation(3))
    close(tmp_path / "b.jpg", TURNS[6](COLORS), LOSSY)


def test_floating_point_is_refused_with_what_to_do(tmp_path):
    Image.fromarray(COLORS[..., 0].astype(np.float32)).save(tmp_path / "a.tif")
    cv2.imwrite(str(tmp_path / "b.tif"), COLORS.astype(np.float32))
    for name in ("a.tif", "b.tif"):
        with pytest.raises(ValueError, match=r"[ab]\.tif: .*floating.point.*export 8 or 16 bits") as raised:
            load_image(tmp_path / name)
        assert "damaged" not in str(raised.value)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim"])
@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg"])
def test_heic_without_its_reader_is_one_sentence(brand, name, photos, weights, tmp_path, monkeypatch):
    """The other photos are used, and the note says what to install."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    _heif_opener.cache_clear()
    (photos / name).write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(ModuleNotFoundError, match=r'pip install "nas3r\[heic\]"'):
        load_image(photos / name)
    if (brand, name) != (b"heic", "a.heic"):
        return
    result = reconstruct(photos, ReconstructOptions(views=3), weights=weights)
    (note,) = [note for note in result.record.notes if "cannot be read" in note]
    assert 'pip install "nas3r[heic]"' in note
