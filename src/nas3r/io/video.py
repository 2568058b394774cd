"""Video files in and out, through PyAV (which brings its own FFmpeg)."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from nas3r.io.atomic import atomic_path
from nas3r.io.colors import HLG, PQ, from_hdr

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".3gp",
))
# fmt: on

# A file that calls itself a video may be a playlist that points elsewhere: only plain containers are opened,
# and they may open nothing but files.
_SAFE_INPUT = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,h264,hevc",
}

_WIDEST_PIXEL = 4.0  # discs have up to 1.46, anamorphic lenses 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says.

    Attributes:
        width: Of the upright frames, in pixels.
        height: Of the upright frames, in pixels.
        frames: Number of frames; an estimate (duration times rate) where the header does not count them.
        fps: Mean frame rate.
        duration: In seconds.
    """

    width: int
    height: int
    frames: int
    fps: float
    duration: float


@dataclass(frozen=True)
class FrameIndex:
    """When each frame of a video is shown, in order; found without decoding.

    Attributes:
        times: Presentation times in units of the stream's time base [n].
        keyframe: Whether decoding can begin at the frame [n].
    """

    times: Int64[np.ndarray, "n"]
    keyframe: Bool[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.times)


def video_info(path: str | os.PathLike[str]) -> VideoInfo:
    """Reads size, frame rate and length of a video.

    Raises:
        ValueError: The file is empty, damaged or holds no video.
        OSError: The file is missing or may not be read.
        ModuleNotFoundError: Without the `video` extra.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = float(container.duration or 0) / 1e6
        frame = next(_decoded(container, stream, str(path)), None)
        if frame is None:
            raise ValueError(f"{path}: no frame of the video can be decoded")
        width, height = _square_size(frame.width, frame.height, _pixel_aspect(stream, str(path)))
        if _quarter_turns(frame) % 2:
            height, width = width, height
        return VideoInfo(width, height, stream.frames or round(duration * fps), fps, duration)


def index_frames(path: str | os.PathLike[str]) -> FrameIndex:
    """Lists the frames of a video, reading the whole file but decoding only if it holds no timestamps.

    Raises:
        ValueError: The file is empty, damaged or holds no video.
        OSError: The file is missing or may not be read.
        ModuleNotFoundError: Without the `video` extra.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        packets = [
            (packet.pts, bool(packet.is_keyframe))
            for packet in _packets(container, stream)
            if packet.size and not packet.is_discard
        ]
    if any(time is None for time, _ in packets):  # raw streams, some AVI files
        with _opened(path) as container:
            stream = container.streams.video[0]
            packets = [(frame.pts, frame.key_frame) for frame in _decoded(container, stream, str(path))]
    if not packets or any(time is None for time, _ in packets):
        raise ValueError(f"{path}: no frame of the video can be decoded")
    packets.sort()
    times, keyframe = zip(*packets)
    return FrameIndex(np.array(times, dtype=np.int64), np.array(keyframe, dtype=bool))


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | None = None,
    max_size: int | None = None,
    *,
    index: FrameIndex | None = None,
    threads: int = 0,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decodes frames one at a time, upright, so that a long video never sits in memory.

    Frames far from the last one are reached by jumping to the keyframe before them.

    Args:
        path: Any video file that FFmpeg reads.
        indices: Positions in order of presentation, ascending; all frames if None.
        max_size: Longest side of the frames in pixels; larger ones are scaled down.
        index: The result of `index_frames`, if it is at hand.
        threads: Of the decoder; 0 lets FFmpeg choose.

    Yields:
        uint8 [height, width, 3] RGB.

    Raises:
        ValueError: The file is empty, damaged or holds no video; an index is out of range, not ascending, or
            its frame is damaged.
        OSError: The file is missing or may not be read.
        ModuleNotFoundError: Without the `video` extra.
    """
    if indices is None:
        return _read_all(path, max_size, threads)
    index = index or index_frames(path)
    wanted = np.asarray(indices, dtype=np.int64)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= len(index)):
        raise ValueError(f"{path}: expected frame indices from 0 to {len(index) - 1}, got {list(indices)}")
    if (np.diff(wanted) < 0).any():
        raise ValueError(f"{path}: expected ascending frame indices, got {list(indices)}")
    return _read_some(path, wanted, max_size, index, threads)


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    fps: float,
    *,
    quality: int = 18,
) -> int:
    """Writes an H.264 MP4 that browsers and phones play; it appears complete or not at all.

    A frame with an odd side loses its last row or column (the colour planes have half the size).

    Args:
        path: File to write, `.mp4`.
        frames: uint8 [height, width, 3] RGB, all of one size, at least 2 x 2 pixels.
        fps: Frames per second.
        quality: Constant rate factor of x264, 0 (lossless) to 51.

    Returns:
        Number of frames written.

    Raises:
        ValueError: No frames, or frames of several sizes or of another type.
        OSError: The folder is missing, not writable or full.
        ModuleNotFoundError: Without the `video` extra.
    """
    av = _av()
    path = Path(path)
    count, shape = 0, None
    options = {"movflags": "+faststart"}
    with (
        atomic_path(path) as temporary,
        av.open(f"file:{temporary}", "w", format="mp4", options=options) as container,
    ):
        stream = None
        for frame in frames:
            if stream is None:
                shape = _checked_shape(path, frame)
                stream = _h264_stream(container, shape, fps, quality)
            if frame.shape != shape or frame.dtype != np.uint8:
                raise ValueError(
                    f"{path}: expected frames of uint8 {list(shape or ())}, "
                    f"got {frame.dtype} {list(frame.shape)} after {count} frames"
                )
            container.mux(stream.encode(_to_yuv(av, frame)))
            count += 1
        if stream is None:
            raise ValueError(f"{path}: there are no frames to write")
        container.mux(stream.encode(None))
    return count


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError('reading and writing video needs pip install "nas3r[video]"') from None
    return av


def _opened(path: str | os.PathLike[str]) -> Any:
    av = _av()
    with Path(path).open("rb") as file:  # says plainly when the file is missing or may not be read
        if not file.read(1):
            raise ValueError(f"{path}: the file is empty")
    try:
        container = av.open(f"file:{path}", metadata_errors="ignore", container_options=dict(_SAFE_INPUT))
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror})") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: the file holds no video")
    return container


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets until the end of the file, or until damage ends it early."""
    av = _av()
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError as error:
        _log.warning("%s: the video is damaged and ends early (%s)", container.name, error.strerror)


def _decoded(container: Any, stream: Any, name: str) -> Iterator[Any]:
    """Frames in order of presentation; packets that cannot be decoded are skipped and counted."""
    av = _av()
    damaged = 0
    for packet in _packets(container, stream):
        try:
            for frame in packet.decode():
                if frame.is_corrupt:  # decoders patch holes with what was there before
                    damaged += 1
                else:
                    yield frame
        except av.error.FFmpegError:
            damaged += 1
    if damaged:
        _log.warning("%s: %d frames of the video are damaged and were skipped", name, damaged)


def _read_all(path: str | os.PathLike[str], max_size: int | None, threads: int) -> Iterator[np.ndarray]:
    with _opened(path) as container:
        stream = _threaded(container, threads)
        frame = None
        aspect = _pixel_aspect(stream, str(path))
        for frame in _decoded(container, stream, str(path)):
            yield _upright_rgb(frame, max_size, aspect)
        if frame is None:
            raise ValueError(f"{path}: no frame of the video can be decoded")


def _read_some(
    path: str | os.PathLike[str], wanted: np.ndarray, max_size: int | None, index: FrameIndex, threads: int
) -> Iterator[np.ndarray]:
    keyframes = np.flatnonzero(index.keyframe)
    with _opened(path) as container:
        stream = _threaded(container, threads)
        decoded = _decoded(container, stream, str(path))
        aspect = _pixel_aspect(stream, str(path))
        position, rgb = -1, None  # index of the last frame yielded, and its pixels
        for target in wanted:
            if target != position:
                before = keyframes[keyframes <= target]
                if before.size and before[-1] > position + 1:
                    container.seek(int(index.times[before[-1]]), stream=stream, backward=True)
                    decoded = _decoded(container, stream, str(path))
                rgb = _frame_at(decoded, int(index.times[target]), max_size, aspect)
                position = target
            if rgb is None:
                raise ValueError(f"{path}: frame {target} is damaged")
            yield rgb


def _frame_at(decoded: Iterator[Any], time: int, max_size: int | None, aspect: float) -> np.ndarray | None:
    for frame in decoded:
        if frame.pts is not None and frame.pts >= time:
            return _upright_rgb(frame, max_size, aspect) if frame.pts == time else None
    return None


def _threaded(container: Any, threads: int) -> Any:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.thread_count = threads
    return stream


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that make the frame upright (phones store the rotation apart)."""
    return round(frame.rotation / 90) % 4


def _pixel_aspect(stream: Any, name: str) -> float:
    """Width of a pixel by its height, as the container says, else the codec; 1 where neither does.

    Raises:
        ValueError: It is beyond anything that a camera or a disc has.
    """
    told = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    aspect = float(told) if told else 1.0
    if not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL:
        raise ValueError(f"{name}: pixels of {told} are not supported; convert the video to square pixels")
    return aspect


def _square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """The size at which pixels are square, neither side smaller than before."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def _upright_rgb(frame: Any, max_size: int | None, aspect: float) -> np.ndarray:
    width, height = _square_size(frame.width, frame.height, aspect)
    longest = max(width, height)
    scale = min(1.0, (max_size or longest) / longest)
    hdr = frame.color_trc in (PQ, HLG)
    rgb = frame.reformat(
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        format="rgb48le" if hdr else "rgb24",
        interpolation="LANCZOS",
    ).to_ndarray()
    if hdr:
        rgb = from_hdr(rgb, frame.color_trc)
    return np.ascontiguousarray(np.rot90(rgb, _quarter_turns(frame)))


def _checked_shape(path: Path, frame: np.ndarray) -> tuple[int, int, int]:
    shape = tuple(frame.shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 2 or frame.dtype != np.uint8:
        raise ValueError(
            f"{path}: expected frames of uint8 [height, width, 3], got {frame.dtype} {list(shape)}"
        )
    return shape


def _h264_stream(container: Any, shape: tuple[int, int, int], fps: float, quality: int) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"expected a positive frame rate, got {fps}")
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(quality), "preset": "medium"})
    stream.height, stream.width = shape[0] // 2 * 2, shape[1] // 2 * 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709, as players assume for HD
    context.color_range = 1  # 16..235
    return stream


def _to_yuv(av: Any, frame: np.ndarray) -> Any:
    even = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
    rgb = av.VideoFrame.from_ndarray(even, format="rgb24")
    return rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
