"""Videos: exact frames after seeking, rotation, odd sizes, damage; and files that browsers play."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nas3r.io import video
from nas3r.io.video import index_frames, read_frames, video_info, write_video

av = pytest.importorskip("av")


def frame(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that says its number: the grey level of the left half; the right half is a colour ramp."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = 10 + 4 * number
    image[:, width // 2 :] = np.linspace(0, 255, height).astype(np.uint8)[:, None, None] * np.array(
        [1, 0, 0], np.uint8
    )
    return image


def number(image: np.ndarray) -> int:
    return round((float(image[:, : image.shape[1] // 3].mean()) - 10) / 4)


def write_with_options(path: Path, count: int, times: list[int] | None = None, **options: str) -> None:
    """H.264 with chosen encoder options and, if given, irregular presentation times in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            picture = av.VideoFrame.from_ndarray(frame(i), format="rgb24")
            picture.pts, picture.time_base = (times[i] if times else i * 33), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_with_options(path, 50, g="12", bf="3")
    return path


def test_round_trip_and_info(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    assert write_video(path, (frame(i) for i in range(20)), fps=29.97) == 20
    info = video_info(path)
    assert (info.width, info.height, info.frames) == (64, 48, 20)
    assert info.fps == pytest.approx(29.97, abs=1e-3)
    assert info.duration == pytest.approx(20 / 29.97, abs=0.05)
    frames = list(read_frames(path))
    assert [number(image) for image in frames] == list(range(20))
    # rate factor 18 on flat colour: a few grey levels; the colour matrix of BT.601 would be off by over 10
    assert np.abs(frames[3].astype(int) - frame(3))[:, 40:60].mean() < 4
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_files_play_in_browsers(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, [frame(0, 49, 65)] * 3, fps=24)  # odd sides
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (64, 48)
        assert context.colorspace == 1  # BT.709
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playback can begin before the download ends


@pytest.mark.parametrize("indices", [[0], [49], [3, 3, 4], [0, 11, 12, 13, 47, 48], list(range(50)), []])
def test_seeking_gives_the_frames_of_plain_decoding(clip: Path, indices: list[int]) -> None:
    assert [number(image) for image in read_frames(clip, indices)] == indices


def test_open_groups_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "open.mkv"
    write_with_options(path, 40, g="10", bf="3", x264opts="open-gop=1:scenecut=0")
    for i in range(40):
        assert [number(image) for image in read_frames(path, [i])] == [i]


def test_irregular_frame_times(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    times = np.cumsum(np.random.default_rng(0).integers(10, 200, 30)).tolist()
    write_with_options(path, 30, times, g="7")
    assert len(index_frames(path)) == 30
    for i in (0, 6, 7, 8, 29):
        assert [number(image) for image in read_frames(path, [i])] == [i]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_phone_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "phone.mp4"
    write_video(path, [frame(5)] * 3, fps=30)
    stored = next(read_frames(path))
    _set_rotation(path, degrees)
    upright = next(read_frames(path))
    np.testing.assert_array_equal(upright, np.rot90(stored, -degrees // 90))
    info = video_info(path)
    assert (info.height, info.width) == upright.shape[:2]


def _set_rotation(path: Path, clockwise_degrees: int) -> None:
    """Writes the display matrix of the track header, as phones do (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise_degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, layer and volume
    assert struct.unpack_from(">9i", data, start) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, start, *matrix)
    path.write_bytes(data)


def test_large_frames_are_scaled_down_but_never_up(clip: Path) -> None:
    (small,), (whole,) = read_frames(clip, [7], max_size=32), read_frames(clip, [7], max_size=1000)
    np.testing.assert_array_equal(whole, next(read_frames(clip, [7])))
    means = whole.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert small.shape == (24, 32, 3)
    # Another filter than the mean of four pixels: only at the edge in the middle they differ by more than a
    # step of the ramp (11 levels).
    assert np.abs(small - means)[:, [*range(14), *range(18, 32)]].max() < 11


def test_frames_stream(clip: Path) -> None:
    frames = read_frames(clip)
    assert number(next(frames)) == 0
    frames.close()  # the file is released although most frames were never asked for


@pytest.mark.parametrize(("indices", "says"), [([50], "0 to 49"), ([-1], "0 to 49"), ([4, 3], "ascending")])
def test_bad_indices(clip: Path, indices: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list(read_frames(clip, indices))


def test_bad_files_are_named(tmp_path: Path, clip: Path) -> None:
    cases = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"this is no video\n" * 100, "not a readable video"),
        "truncated.mp4": (clip.read_bytes()[:-200], "not a readable video"),  # its table of contents is gone
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not a readable video"),
        "concat.mp4": (b"ffconcat version 1.0\nfile clip.mp4\n", "not a readable video"),
    }
    for name, (content, says) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        for read in (video_info, index_frames, lambda p: list(read_frames(p))):
            with pytest.raises(ValueError, match=says) as error:
                read(path)
            assert name in str(error.value)
    with pytest.raises(FileNotFoundError, match="nothing"):
        list(read_frames(tmp_path / "nothing.mp4"))


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="no video"):
        video_info(path)


def test_damage_in_the_middle_is_skipped_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.ts"
    write_with_options(path, 40, g="5")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    # Several threads conceal damage differently from run to run: a frame within it may look like anything.
    frames = [number(image) for image in read_frames(path, threads=1)]
    assert 10 < len(frames) < 40
    assert frames == sorted(frames)
    assert frames[:10] == list(range(10))
    assert frames[-10:] == list(range(30, 40))


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("http:x.mp4", [frame(1)] * 2, fps=30)
    assert [number(image) for image in read_frames("http:x.mp4")] == [1, 1]


def test_writing_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, [frame(0)] * 2, fps=30)
    before = path.read_bytes()
    for frames, says in (
        ([], "no frames"),
        ([frame(0), frame(0, 32, 32)], "after 1 frames"),
        ([frame(0).astype(np.float32)], "uint8"),
        ([np.zeros((1, 8, 3), np.uint8)], "height, width"),
    ):
        with pytest.raises(ValueError, match=says):
            write_video(path, frames, fps=30)
    with pytest.raises(ValueError, match="frame rate"):
        write_video(path, [frame(0)], fps=-1)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_absence_of_the_extra_is_one_sentence(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"nas3r\[video\]"):
        video.video_info(clip)


def test_real_clip(shared_data: Path) -> None:
    path = shared_data / "renders_haofeixu" / "re10k_2a695d52faf1949e.mp4"
    info = video_info(path)
    index = index_frames(path)
    assert (info.width, info.height, info.frames) == (960, 512, 279)
    assert len(index) == 279
    wanted = [10, 100]
    streamed = [image for i, image in enumerate(read_frames(path, max_size=240)) if i in wanted]
    for a, b in zip(read_frames(path, wanted, max_size=240, index=index), streamed):
        np.testing.assert_array_equal(a, b)
