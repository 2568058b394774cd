"""Whatever a container says of geometry or colour is applied, or refused in a sentence; damage is found."""

import io
import logging
import random
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from nas3r.io.colors import HLG, PQ, from_hdr
from nas3r.io.images import decode_image, image_size, is_plain, load_image
from nas3r.io.other_formats import what_to_do
from nas3r.io.video import index_frames, read_frames, video_info, write_video
from nas3r.reconstruction import ReconstructOptions, reconstruct
from nas3r.reconstruction.inputs import gather

CORNERS = np.zeros((16, 24, 3), np.uint8)
CORNERS[:8, :12], CORNERS[:8, 12:], CORNERS[8:, :12] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


# --- orientation --------------------------------------------------------------------------------------------

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".jpg"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_orientation_is_applied_once(orientation, suffix, compression, tmp_path):
    if compression and suffix != ".tif":
        pytest.skip("of TIFF")
    exif = Image.Exif()
    exif[274] = orientation
    options = {"compression": compression} if compression else {}
    options |= {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    path = tmp_path / f"a{suffix}"
    Image.fromarray(CORNERS).save(path, exif=exif, **options)
    expected = TURNS[orientation](CORNERS)
    assert np.abs(load_image(path).astype(int) - expected).mean() < 3  # JPEG rings at edges
    assert image_size(path) == (expected.shape[1], expected.shape[0])


# --- colour -------------------------------------------------------------------------------------------------


def profile(primaries: str) -> bytes:
    """An ICC profile of sRGB's curve and other primaries, as matrices of columns XYZ (D50)."""
    columns = {
        "display-p3": ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
        "srgb": ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)),
    }[primaries]

    def fixed(value: float) -> bytes:
        return round(value * 65536).to_bytes(4, "big", signed=True)

    tags = {
        name: b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz))
        for name, xyz in zip(("rXYZ", "gXYZ", "bXYZ"), columns)
    }
    tags["wtpt"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    curve = b"para\0\0\0\0\0\x03\0\0" + b"".join(
        map(fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    )
    tags |= dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve)
    text = primaries.encode()
    tags["desc"] = b"desc\0\0\0\0" + (len(text) + 1).to_bytes(4, "big") + text + bytes(1 + 4 + 4 + 2 + 1 + 67)
    tags["cprt"] = b"text\0\0\0\0none\0"
    table, body, place = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name.encode() + (place + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    whole = len(tags).to_bytes(4, "big") + table + body
    head = (128 + len(whole)).to_bytes(4, "big") + b"\0\0\0\0\x02\x10\0\0mntrRGB XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + whole


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_wide_gamut_is_brought_to_srgb(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 16), (200, 80, 60)).save(path, icc_profile=profile("display-p3"))
    found = load_image(path).reshape(-1, 3).mean(0)
    # Display P3 to sRGB by its published matrix, linear light.
    linear = ((np.array([200, 80, 60]) / 255 + 0.055) / 1.055) ** 2.4
    matrix = np.array([[1.2249, -0.2249, 0], [-0.0420, 1.0420, 0], [-0.0196, -0.0786, 1.0983]])
    expected = 255 * (1.055 * (matrix @ linear) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(found, expected, atol=4)
    assert not is_plain(path, ("PNG", "JPEG", "WEBP", "TIFF"))


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_wide_gamut_of_other_modes(mode, tmp_path):
    image = Image.new("RGB", (16, 16), (200, 80, 60))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=profile("display-p3"))
    Image.new("RGB", (16, 16), (200, 80, 60)).save(tmp_path / "b.png", icc_profile=profile("display-p3"))
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), load_image(tmp_path / "b.png"), atol=2)


@pytest.mark.parametrize("icc", ["srgb", "builtin", "damaged", "none"])
def test_srgb_is_left_as_it_is(icc, tmp_path, caplog):
    data = {
        "srgb": profile("srgb"),
        "builtin": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "damaged": b"no profile",
        "none": None,
    }[icc]
    Image.fromarray(CORNERS).save(tmp_path / "a.png", icc_profile=data)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), CORNERS)
    assert is_plain(tmp_path / "a.png", ("PNG",))
    assert ("colour profile cannot be read" in caplog.text) == (icc == "damaged")


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_keeps_black_white_and_order(transfer):
    codes = np.linspace(0, 65535, 200).astype(np.uint16)[None, :, None].repeat(3, -1)
    grey = from_hdr(codes, transfer)[0].astype(int)
    assert (grey.max(1) - grey.min(1)).max() <= 1  # grey stays grey
    assert grey[0].max() == 0
    assert grey[-1].min() == 255
    assert (np.diff(grey[:, 0]) >= 0).all()
    # Diffuse white, 203 nits, is 58 % of PQ and 75 % of HLG (ITU-R BT.2408): bright, below highlights.
    white = from_hdr(
        np.full((1, 1, 3), round(65535 * (0.58 if transfer == PQ else 0.75)), np.uint16), transfer
    )
    assert 190 <= white[0, 0, 0] <= 235
    # 18 % grey, 38 % of both.
    middle = from_hdr(np.full((1, 1, 3), round(65535 * 0.38), np.uint16), transfer)
    assert 95 <= middle[0, 0, 0] <= 135


def video(
    path: Path, frames: int = 6, *, aspect: Fraction | None = None, transfer: int | None = None
) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265" if transfer else "libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le" if transfer else "yuv420p"
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        if transfer is not None:
            context = stream.codec_context
            context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
            stream.options = {"x265-params": f"log-level=none:transfer={transfer}:colorprim=9:colormatrix=9"}
        for i in range(6):
            image = np.full((64, 96, 3), 128, np.uint8)
            image[:, 8 * i : 8 * i + 16] = 230
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(3, 4), Fraction(16, 11), None])
def test_pixels_of_a_video_become_square(aspect, tmp_path):
    video(tmp_path / "a.mp4", aspect=aspect)
    ratio = 96 / 64 * float(aspect or 1)
    info = video_info(tmp_path / "a.mp4")
    assert info.width / info.height == pytest.approx(ratio, rel=0.02)
    for frames in (read_frames(tmp_path / "a.mp4", [0, 3]), read_frames(tmp_path / "a.mp4")):
        assert next(frames).shape == (info.height, info.width, 3)
    small = next(read_frames(tmp_path / "a.mp4", [0], max_size=32))
    assert small.shape[1] / small.shape[0] == pytest.approx(ratio, rel=0.05)
    assert max(small.shape) == 32


def test_pixels_beyond_all_bounds_are_refused(tmp_path):
    video(tmp_path / "a.mkv", aspect=Fraction(50, 1))
    with pytest.raises(ValueError, match="square pixels"):
        video_info(tmp_path / "a.mkv")


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_video_is_tone_mapped(transfer, tmp_path):
    av = pytest.importorskip("av")
    if "libx265" not in av.codecs_available:
        pytest.skip("no encoder of 10 bits")
    video(tmp_path / "a.mp4", transfer=transfer)
    frame = next(read_frames(tmp_path / "a.mp4", [0])).astype(int)
    plain = np.array([128, 230])
    found = np.array([frame[:, 60:].mean(), frame[:, 2:12].mean()])
    assert (found > plain).all() or found[1] - found[0] > 60  # neither grey nor flat
    expected = from_hdr((np.array([128, 230]) * 257).astype(np.uint16)[None, :, None].repeat(3, -1), transfer)
    np.testing.assert_allclose(found, expected[0, :, 0], atol=6)


# --- damage -------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_png_is_found():
    buffer = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8)).save(
        buffer, "PNG", pnginfo=info
    )
    whole, rng = buffer.getvalue(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match=r"a\.png: "):
            decode_image(bytes(data), "a.png")
    decode_image(whole + b"trailing", "a.png")


def test_a_png_cut_anywhere_is_found():
    buffer = io.BytesIO()
    Image.fromarray(CORNERS).save(buffer, "PNG")
    whole = buffer.getvalue()
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"a\.png: "):
            decode_image(whole[:length], "a.png")


def test_a_png_that_claims_a_huge_part(tmp_path):
    head = b"\x89PNG\r\n\x1a\n"
    part = b"IHDR" + (8).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    data = (
        head + (13).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big") + b"\xff\xff\xff\xffIDAT"
    )
    with pytest.raises(ValueError, match=r"a\.png: "):
        decode_image(data, "a.png")


def test_damaged_pngs_are_skipped_counted_and_named(photos, weights):
    for i in (1, 2):
        Image.open(photos / f"photo_{i}.jpg").save(photos / f"bad_{i}.png")
        data = bytearray((photos / f"bad_{i}.png").read_bytes())
        data[len(data) // 2] ^= 16
        (photos / f"bad_{i}.png").write_bytes(data)
    result = reconstruct(photos, ReconstructOptions(views=4), weights=weights)
    assert len(result.views) == 4
    (note,) = [note for note in result.record.notes if "cannot be read" in note]
    assert note.startswith("2 pictures cannot be read and were skipped")
    assert "bad_1.png" in note
    assert "bad_2.png" in note


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".webm"])
def test_damaged_videos_end_in_frames_or_a_sentence(suffix, tmp_path, caplog):
    pytest.importorskip("av")
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / f"a{suffix}"
    if suffix == ".mp4":
        write_video(path, [np.roll(CORNERS.repeat(4, 0).repeat(4, 1), i, 1) for i in range(12)], 24)
    else:
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("libvpx" if suffix == ".webm" else "mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for i in range(12):
                image = np.roll(CORNERS.repeat(4, 0).repeat(4, 1), i, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    whole, rng = path.read_bytes(), random.Random(suffix)
    for _ in range(15):
        data = bytearray(whole[: rng.randrange(len(whole) // 2, len(whole) + 1)])
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            index = index_frames(path)
            list(gather(path)[0].read(range(0, len(index), 5)))
        except ValueError as error:
            assert "a" + suffix in str(error)  # noqa: PT017


# --- other formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.dng", b"II*\0", "a raw photo; develop it"),
        ("a.CR2", b"II*\0", "a raw photo"),
        ("a.jpg", b"\0\0\0\x18ftypcrx isom", "a raw photo"),
        ("a.jxl", b"\xff\x0a", "JPEG XL"),
        ("a.jpg", b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        ("a.zip", b"PK\x03\x04", "an archive; unpack it"),
        ("photos.jpg", b"PK\x03\x04" + bytes(30), "an archive; unpack it"),
        ("a.rar", b"Rar!\x1a\x07", "an archive"),
        ("a.psd", b"8BPS", "Photoshop"),
        ("a.pdf", b"%PDF-1.7", "no photo"),
        ("a.exr", b"v/1\x01", "HDR image"),
        ("a.insp", b"anything", "360-degree"),
        ("a.xyz", b"anything", "not an image of a known format"),
    ],
)
def test_formats_that_are_not_read_are_named_with_what_to_do(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as raised:
        load_image(tmp_path / name)
    assert name in str(raised.value)


def test_a_jpeg_of_another_name_is_read(tmp_path):
    Image.fromarray(CORNERS).save(tmp_path / "a.zip", "JPEG")
    assert load_image(tmp_path / "a.zip").shape == CORNERS.shape
    assert what_to_do("a.jpg") is None
