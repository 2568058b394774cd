"""Video files in and out, through PyAV (which brings its own FFmpeg)."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from nas3r.io.atomic import atomic_path
from nas3r.io.video_pixels import display_matrix, pixel_aspect, square_size, upright_rgb

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".f4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".mpe", ".m2v",
    ".vob", ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".3gp", ".3g2", ".flv", ".ogv", ".mxf", ".dv", ".h264",
    ".264", ".hevc", ".h265", ".265",
))
# fmt: on

# A file that calls itself a video may be a playlist that points elsewhere: only plain containers are opened,
# and they may open nothing but files.
_SAFE_INPUT = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,dv,"
    "h264,hevc",
}

_MOST_JUMPS = 3  # to reach a frame, before it is looked for from the beginning

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
        times: Presentation times in units of the stream's time base [n]; where `counted`, places.
        keyframe: Whether decoding can begin at the frame [n].
        counted: Whether the file tells no times, or wrong ones. Its frames are then found by counting.
    """

    times: Int64[np.ndarray, "n"]
    keyframe: Bool[np.ndarray, "n"]
    counted: bool = False

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
        stream = _main(container)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = float(container.duration or 0) / 1e6
        frame = next(_decoded(container, stream, str(path)), None)
        if frame is None:
            raise ValueError(f"{path}: no frame of the video can be decoded")
        width, height = square_size(frame.width, frame.height, pixel_aspect(stream, str(path)))
        if not display_matrix(frame)[0]:  # a quarter turn
            height, width = width, height
        return VideoInfo(width, height, stream.frames or round(duration * fps), fps, duration)


def index_frames(path: str | os.PathLike[str]) -> FrameIndex:
    """Lists the frames of a video, reading the whole file but decoding only if it tells no times to trust.

    Raises:
        ValueError: The file is empty, damaged or holds no video.
        OSError: The file is missing or may not be read.
        ModuleNotFoundError: Without the `video` extra.
    """
    with _opened(path) as container:
        packets = [
            (packet.pts, packet.dts, bool(packet.is_keyframe))
            for packet in _packets(container, _main(container))
            if packet.size and not packet.is_discard
        ]
        trusted = _are_times_true(container, packets)
    if not trusted:
        return _counted(path)
    frames = sorted((shown, keyframe) for shown, _, keyframe in packets)
    # A recording that was cut begins with frames that need what was before.
    first = next((i for i, (_, keyframe) in enumerate(frames) if keyframe), 0)
    times, keyframe = zip(*frames[first:])
    return FrameIndex(np.array(times, dtype=np.int64), np.array(keyframe, dtype=bool))


def _are_times_true(container: Any, packets: list[tuple[int | None, int | None, bool]]) -> bool:
    """Whether packets say when their frames are shown.

    Raw streams hold no times, AVI files those of decoding; program streams give one to some frames only, and
    after a jump others than before. Recordings that were joined begin anew.
    """
    kind = container.format.name
    reordered = kind == "avi" and _main(container).codec_context.has_b_frames
    decoded = [time for _, time, _ in packets if time is not None]
    shown = {time for time, _, _ in packets}
    told = bool(packets) and None not in shown and len(shown) == len(packets)
    return told and not reordered and kind != "mpeg" and all(a <= b for a, b in pairwise(decoded))


def _counted(path: str | os.PathLike[str]) -> FrameIndex:
    with _opened(path) as container:
        count = sum(1 for _ in _decoded(container, _main(container), str(path)))
    if not count:
        raise ValueError(f"{path}: no frame of the video can be decoded")
    return FrameIndex(np.arange(count), np.arange(count) == 0, counted=True)


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
        aspect = pixel_aspect(stream, str(path))
        for frame in _decoded(container, stream, str(path)):
            yield upright_rgb(frame, max_size, aspect)
        if frame is None:
            raise ValueError(f"{path}: no frame of the video can be decoded")


def _read_some(
    path: str | os.PathLike[str], wanted: np.ndarray, max_size: int | None, index: FrameIndex, threads: int
) -> Iterator[np.ndarray]:
    keyframes = np.flatnonzero(index.keyframe)
    with ExitStack() as opened:
        container = opened.enter_context(_opened(path))
        decoded = _timed(container, _threaded(container, threads), str(path), index)
        aspect = pixel_aspect(_main(container), str(path))
        position, rgb = -1, None  # index of the last frame yielded, and its pixels
        for target in wanted:
            if target != position:
                before = keyframes[keyframes <= target]
                if before.size and before[-1] > position + 1:
                    jumped = _jumped(container, str(path), index, int(index.times[target]), before)
                    if jumped is None:
                        opened.close()
                        container = opened.enter_context(_opened(path))
                        jumped = _timed(container, _threaded(container, threads), str(path), index)
                    decoded = jumped
                rgb = _frame_at(decoded, int(index.times[target]), max_size, aspect)
                position = target
            if rgb is None:
                raise ValueError(f"{path}: frame {target} is damaged")
            yield rgb


def _jumped(
    container: Any, name: str, index: FrameIndex, time: int, keyframes: Int64[np.ndarray, "k"]
) -> Iterator[tuple[int | None, Any]] | None:
    """Frames from one of these keyframes on; None if jumping leads nowhere before the time.

    Some containers (transport streams) find a later keyframe than was asked for.
    """
    for keyframe in keyframes[::-1][:_MOST_JUMPS]:
        container.seek(int(index.times[keyframe]), stream=_main(container), backward=True)
        decoded = _timed(container, _main(container), name, index)
        first = next(decoded, None)
        if first is not None and first[0] is not None and first[0] <= time:
            return chain([first], decoded)
    return None


def _timed(container: Any, stream: Any, name: str, index: FrameIndex) -> Iterator[tuple[int | None, Any]]:
    """Frames with their times, in the sense of the index."""
    for place, frame in enumerate(_decoded(container, stream, name)):
        yield place if index.counted else frame.pts, frame


def _frame_at(
    decoded: Iterator[tuple[int | None, Any]], time: int, max_size: int | None, aspect: float
) -> np.ndarray | None:
    for shown, frame in decoded:
        if shown is not None and shown >= time:
            return upright_rgb(frame, max_size, aspect) if shown == time else None
    return None


def _main(container: Any) -> Any:
    """The video among the streams; cover pictures are streams too."""
    return container.streams.best("video") or container.streams.video[0]


def _threaded(container: Any, threads: int) -> Any:
    stream = _main(container)
    stream.thread_type = "AUTO"
    stream.thread_count = threads
    return stream


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
