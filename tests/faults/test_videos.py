"""Videos of every container and codec that can be written here: each frame once, in order, as it is shown."""

import logging
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas3r.cli.main import main
from nas3r.io.animations import num_frames, read_animation
from nas3r.io.images import load_image
from nas3r.io.video import VIDEO_SUFFIXES, index_frames, read_frames, video_info
from nas3r.reconstruction.inputs import Animation, Files, gather

av = pytest.importorskip("av")

COUNT = 12


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, "libav")


def frame(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Four colours, and a white bar whose place says which frame it is."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 2, : width // 2] = (200, 60, 60)
    image[: height // 2, width // 2 :] = (60, 180, 60)
    image[height // 2 :, : width // 2] = (60, 60, 200)
    image[height * 3 // 4 :, width * number // COUNT : width * (number + 1) // COUNT] = 255
    return image


def number_of(image: np.ndarray) -> int:
    bar = image[-max(1, image.shape[0] // 8) :].astype(int).min(2).mean(0)
    places = [chunk.mean() for chunk in np.array_split(bar, COUNT)]
    return int(np.argmax(places))


def write(
    path: Path,
    codec: str,
    pixels: str,
    *,
    size: tuple[int, int] = (96, 64),
    frames: Sequence[np.ndarray] | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
) -> None:
    frames = frames or [frame(i, *size) for i in range(COUNT)]
    with av.open(str(path), "w", format=container) as file:
        try:
            stream = file.add_stream(codec, rate=24, options=options or {})
        except (ValueError, av.error.FFmpegError):
            pytest.skip(f"no encoder {codec} here")
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], pixels
        for i, image in enumerate(frames):
            layout = "rgba" if image.shape[2] == 4 else "rgb24"
            picture: Any = av.VideoFrame.from_ndarray(image, format=layout).reformat(format=pixels)
            if times is not None:
                picture.pts, picture.time_base = times[i], Fraction(1, 1000)
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))


def check(path: Path, count: int = COUNT, first: int = 0) -> None:
    """All ways to read a video agree, and show its frames in order."""
    index = index_frames(path)
    everything = list(read_frames(path))
    assert len(index) == len(everything) == count
    assert [number_of(image) for image in everything] == [(first + i) % COUNT for i in range(count)]
    chosen = [0, 2, 3, count - 2, count - 1]
    for i, image in zip(chosen, read_frames(path, chosen), strict=True):
        np.testing.assert_array_equal(image, everything[i])
    info = video_info(path)
    assert everything[0].shape == (info.height, info.width, 3)


CODECS = [
    *[(s, "libx264", "yuv420p") for s in (".mp4", ".mov", ".mkv", ".avi", ".ts", ".mts", ".m2ts", ".flv")],
    *[(s, "libx264", "yuv420p") for s in (".3gp", ".m4v", ".f4v", ".qt", ".h264")],
    *[(s, "libx265", "yuv420p10le") for s in (".mp4", ".mkv", ".ts", ".hevc")],
    *[(s, "mpeg4", "yuv420p") for s in (".avi", ".divx", ".3gp", ".mov")],
    *[(s, "mpeg2video", "yuv420p") for s in (".mpg", ".mpeg", ".vob", ".ts", ".mkv", ".m2v")],
    *[(s, "wmv2", "yuv420p") for s in (".wmv", ".asf")],
    *[(s, "mjpeg", "yuvj422p") for s in (".avi", ".mov", ".mp4")],
    *[(s, "libvpx", "yuv420p") for s in (".webm", ".ogv", ".mkv")],
    *[(".mp4", "libx264", p) for p in ("yuv444p", "yuvj420p", "yuv422p", "gray")],
    (".mpg", "mpeg1video", "yuv420p"),
    (".webm", "libvpx-vp9", "yuv420p"),
    (".mp4", "libsvtav1", "yuv420p10le"),
    (".mov", "prores_ks", "yuv422p10le"),
    (".mov", "qtrle", "rgb24"),
    (".mov", "png", "rgb24"),
    (".mov", "rawvideo", "uyvy422"),
    (".mkv", "ffv1", "gbrp10le"),
    (".avi", "huffyuv", "rgb24"),
    (".avi", "rawvideo", "bgr24"),
    (".mxf", "mpeg2video", "yuv420p"),
    (".flv", "flv", "yuv420p"),
]
CONTAINERS = {".f4v": "mp4", ".divx": "avi", ".qt": "mov", ".mts": "mpegts", ".m2ts": "mpegts", ".ogv": "ogg"}


@pytest.mark.parametrize(("suffix", "codec", "pixels"), CODECS)
def test_every_container_and_codec(suffix, codec, pixels, tmp_path):
    assert suffix in VIDEO_SUFFIXES
    path = tmp_path / f"a{suffix}"
    images = [frame(i % COUNT) for i in range(40)]
    write(path, codec, pixels, frames=images, container=CONTAINERS.get(suffix), options={"g": "6"})
    check(path, len(images))
    (source,) = gather(path)
    assert len(source) == len(images)
    for chosen in ([0, 13], [17, 18, 30], [39]):
        found = [number_of(np.asarray(image)) for image in source.read(chosen)]
        assert found == [i % COUNT for i in chosen]


@pytest.mark.parametrize("size", [(97, 65), (61, 120), (121, 31)])
@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "ffv1"), (".webm", "libvpx-vp9"), (".avi", "mpeg4")])
def test_odd_sizes(size, suffix, codec, tmp_path):
    write(tmp_path / f"a{suffix}", codec, "yuv444p" if codec == "ffv1" else "yuv420p", size=size)
    assert next(read_frames(tmp_path / f"a{suffix}")).shape == (size[1], size[0], 3)
    check(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_variable_frame_rate(codec, tmp_path):
    """Phones slow down in the dark, screen recordings stand still; two frames may share a millisecond."""
    write(
        tmp_path / "a.mkv",
        codec,
        "yuv420p",
        times=[0, 40, 41, 200, 1000, 1033, 1034, 1500, 2000, 2001, 2002, 5000],
    )
    check(tmp_path / "a.mkv")


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_and_mirrored(turn, mirrored, tmp_path):
    """As the display matrix of the track header says; front cameras mirror (ISO/IEC 14496-12, 8.3.2)."""
    path = tmp_path / "a.mp4"
    write(path, "libx264", "yuv444p")
    turned = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turn)  # clockwise, y down
    linear = turned @ np.diag([-1, 1]) if mirrored else turned
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    (a, c), (b, d) = (linear * 65536).tolist()
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    stored = frame(3)[:, ::-1] if mirrored else frame(3)
    expected = np.rot90(stored, -turn)
    found = next(read_frames(path, [3]))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4
    assert video_info(path).width == expected.shape[1]


def test_interlaced_frames_show_one_moment(tmp_path):
    """Two moments in alternating lines are a comb; half of the lines are one moment."""
    combs = []
    for i in range(0, COUNT, 2):
        image = frame(i, 720, 576)
        image[1::2] = frame(i + 1, 720, 576)[1::2]
        combs.append(image)
    write(
        tmp_path / "a.mp4", "libx264", "yuv444p", size=(720, 576), frames=combs, options={"x264opts": "tff"}
    )
    for i, image in enumerate(read_frames(tmp_path / "a.mp4")):
        assert image.shape == (576, 720, 3)
        assert np.abs(image.astype(int) - frame(2 * i, 720, 576)).mean() < 5


@pytest.mark.parametrize(("suffix", "codec", "pixels"), [(".mov", "qtrle", "argb"), (".mov", "png", "rgba")])
def test_transparency_is_put_on_white(suffix, codec, pixels, tmp_path):
    seen = np.dstack([frame(0), np.full((64, 96), 255, np.uint8)])
    seen[:20, :20, 3] = 0
    write(tmp_path / f"a{suffix}", codec, pixels, frames=[seen] * 3)
    image = next(read_frames(tmp_path / f"a{suffix}"))
    assert (image[:16, :16] > 250).all()
    assert np.abs(image[24:].astype(int) - frame(0)[24:]).mean() < 4


@pytest.mark.parametrize(("size", "matrix"), [((96, 64), "ITU601"), ((1280, 64), "ITU709")])
def test_colours_of_videos_that_tell_no_matrix(size, matrix, tmp_path):
    """Players take high definition for BT.709, and the rest for BT.601."""
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=24, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        picture = av.VideoFrame.from_ndarray(frame(0, *size), format="rgb24")
        file.mux(stream.encode(picture.reformat(format="yuv444p", dst_colorspace=matrix)))
        file.mux(stream.encode(None))
    found = next(read_frames(tmp_path / "a.mp4")).astype(int)
    assert np.abs(found - frame(0, *size)).mean() < 3


def test_a_recording_that_was_cut_begins_at_its_first_whole_frame(tmp_path):
    images = [frame(i % COUNT) for i in range(30)]
    write(tmp_path / "a.ts", "libx264", "yuv420p", frames=images, options={"g": "10"})
    data = (tmp_path / "a.ts").read_bytes()
    with av.open(str(tmp_path / "a.ts")) as file:
        places = [packet.pos for packet in file.demux(file.streams.video[0]) if packet.is_keyframe]
    (tmp_path / "b.ts").write_bytes(data[(places[0] // 188 + 12) * 188 :])
    index = index_frames(tmp_path / "b.ts")
    assert index.keyframe[0]
    check(tmp_path / "b.ts", len(index), first=30 - len(index))


def test_recordings_that_were_joined_are_read_to_the_end(tmp_path):
    """Times begin anew, and the size may change."""
    write(tmp_path / "a.ts", "libx264", "yuv420p")
    write(tmp_path / "b.ts", "libx264", "yuv420p", size=(120, 96))
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    index = index_frames(tmp_path / "c.ts")
    assert len(index) == 2 * COUNT
    frames = list(read_frames(tmp_path / "c.ts", range(2 * COUNT), index=index))
    assert [number_of(image) for image in frames] == [*range(COUNT)] * 2
    assert frames[-1].shape == (96, 120, 3)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_cover_picture_is_not_the_video(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as file:
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = file.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        file.mux(cover.encode(picture.reformat(format="yuvj420p")))
        file.mux(cover.encode(None))
        for i in range(COUNT):
            picture = av.VideoFrame.from_ndarray(frame(i), format="rgb24")
            file.mux(stream.encode(picture.reformat(format="yuv420p")))
        file.mux(stream.encode(None))
    check(path)


# --- animated images ----------------------------------------------------------------------------------------


def animate(path: Path, count: int = COUNT) -> None:
    first, *others = [Image.fromarray(frame(i)) for i in range(count)]
    options = {".gif": {}, ".webp": {"quality": 95}, ".avif": {"quality": 90}}.get(path.suffix, {})
    if path.suffix == ".avif" and ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow writes no AVIF")
    kind = {"format": "PNG"} if path.suffix == ".apng" else {}
    first.save(path, save_all=True, append_images=others, duration=40, **options, **kind)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp", ".avif"])
def test_animated_images_are_short_videos(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    animate(path)
    assert num_frames(path) == COUNT
    (source,) = gather(path)
    assert isinstance(source, Animation)
    assert [number_of(np.asarray(image)) for image in source.read(range(COUNT))] == [*range(COUNT)]
    assert [number_of(image) for image in read_animation(path, [2, 9])] == [2, 9]
    assert source.label(3) == "a_00003.png"
    np.testing.assert_array_equal(load_image(path), next(read_animation(path, [0])))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_one_picture_is_no_animation(suffix, tmp_path):
    animate(tmp_path / f"a{suffix}", 1)
    assert isinstance(gather(tmp_path / f"a{suffix}")[0], Files)


def test_pages_and_thumbnails_are_no_moments(tmp_path):
    Image.fromarray(frame(0)).save(
        tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(frame(1))]
    )
    assert isinstance(gather(tmp_path / "a.tif")[0], Files)


def test_animations_in_a_folder_give_one_picture_each_and_a_word(tmp_path, caplog):
    animate(tmp_path / "a.gif")
    Image.fromarray(frame(1)).save(tmp_path / "b.gif")
    with caplog.at_level(logging.WARNING):
        (source,) = gather(tmp_path)
    assert len(source) == 2
    assert "1 files are animated, e.g. a.gif: only the first picture" in caplog.text


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_damaged_animations_end_in_frames_or_a_sentence(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    animate(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(whole[: rng.integers(20, len(whole) + 1)])
        for place in rng.integers(0, len(data), 3):
            data[place] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        for image in gather(path)[0].read(range(len(gather(path)[0]))):
            assert isinstance(image, np.ndarray) or image.reason


# --- in the place of something else -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".3gp", ".webm"])
def test_videos_under_the_name_of_a_photo_are_named(suffix, tmp_path):
    write(tmp_path / f"a{suffix}", "libvpx" if suffix == ".webm" else "mpeg4", "yuv420p")
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: a video under the name of a photo"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", ["photo", "sound", "playlist", "nothing"])
def test_what_is_no_video_is_one_sentence(content, tmp_path, capsys):
    path = tmp_path / "a.mp4"
    if content == "photo":
        Image.fromarray(frame(0)).save(path, "JPEG")
    elif content == "sound":
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=44100)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 44100
            file.mux(stream.encode(sound))
            file.mux(stream.encode(None))
    else:
        path.write_text("#EXTM3U\nfile:///etc/passwd\n" if content == "playlist" else "")
    assert main(["reconstruct", str(path), "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"nas3r: {path}: ")
