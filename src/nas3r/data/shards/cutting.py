"""Clips of a video: one per shot, without duplicates, static shots and frames of one colour."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nas3r.data.analysis import Alignment, align, thumbnail
from nas3r.data.shards.options import ShardOptions
from nas3r.data.shards.records import VideoRecord
from nas3r.data.shots import Label, LabelledFrame, label_frames
from nas3r.io.images import Resize, encode_jpeg
from nas3r.io.video import read_frames, video_info


@dataclass
class CutClip:
    """A clip in the making.

    Attributes:
        first: Frame of the video that it begins with.
        fps: Frames per second.
        frames: JPEG files.
        numbers: Their frames in the video.
        travel: Path length of the image content up to each frame, in image widths.
        extent: Largest motion against the first frame, measured until it is large enough.
        duplicates: Number of frames left out because they equal the one before.
        size: Width and height of the frames.
        start: Thumbnail of the first frame.
        last: Thumbnail of the last frame kept.
    """

    first: int
    fps: float
    frames: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    travel: list[float] = field(default_factory=list)
    extent: float = 0.0
    duplicates: int = 0
    size: tuple[int, int] = (0, 0)
    start: np.ndarray | None = None
    last: np.ndarray | None = None

    def motion_to(self, number: int, small: np.ndarray, known: Alignment | None) -> float:
        """Motion from the last frame kept to another frame of the video, 0 for the first frame.

        `known` is how that frame follows from the one just before it in the video.
        """
        if self.last is None:
            return 0.0
        if known is None or self.numbers[-1] != number - 1:
            known = align(self.last, small)
        return known.motion

    def add(
        self, number: int, image: np.ndarray, small: np.ndarray, motion: float, options: ShardOptions
    ) -> None:
        """Keeps a frame of the video that moved so much since the last one kept."""
        if self.start is None:
            self.start, self.size = small, (image.shape[1], image.shape[0])
        elif self.extent < options.min_extent:
            self.extent = max(self.extent, align(self.start, small).motion)
        self.frames.append(encode_jpeg(image, options.quality))
        self.numbers.append(number)
        self.travel.append((self.travel[-1] if self.travel else 0.0) + motion)
        self.last = small

    def fault(self, options: ShardOptions) -> str:
        """Why the clip is left out; empty if it is good."""
        if len(self.frames) < options.min_frames:
            still = len(self.frames) + self.duplicates >= options.min_frames
            return "static" if still else "too short"
        return "static" if self.extent < options.min_extent else ""

    def description(self, video: str) -> dict[str, Any]:
        """What is stored beside the frames."""
        return {
            "video": video,
            "frames": self.numbers,
            "fps": round(self.fps, 3),
            "width": self.size[0],
            "height": self.size[1],
            "travel": [round(value, 5) for value in self.travel],
        }


def cut_clips(path: Path, options: ShardOptions, record: VideoRecord) -> Iterator[CutClip]:
    """The good clips of a video; what is left out is counted in the record."""
    info = video_info(path)
    every = max(1, round(info.fps / options.fps)) if options.fps and info.fps else 1
    clip = CutClip(0, info.fps / every)
    for number, (image, small, labelled) in enumerate(_labelled(path, info.width, info.height, options)):
        if labelled.label is not Label.CONTINUES:
            if _is_good(clip, options, record):
                yield clip
            clip = CutClip(number, info.fps / every)
        if labelled.label in (Label.BLANK, Label.TRANSITION):
            record.count(labelled.label.value)
            continue
        if number % every:
            record.count("thinned out")
            continue
        motion = clip.motion_to(number, small, labelled.alignment)
        if clip.frames and motion < options.min_motion:
            record.count("duplicate")
            clip.duplicates += 1
            continue
        if len(clip.frames) == options.max_frames:
            if _is_good(clip, options, record):
                yield clip
            clip, motion = CutClip(number, info.fps / every), 0.0
        clip.add(number, image, small, motion, options)
    if _is_good(clip, options, record):
        yield clip


def _is_good(clip: CutClip, options: ShardOptions, record: VideoRecord) -> bool:
    fault = clip.fault(options)
    if clip.frames:
        record.count(fault or "kept", len(clip.frames))
    if fault and clip.frames:
        record.rejected.append({"first": clip.first, "frames": len(clip.frames), "reason": fault})
    return not fault


def _labelled(
    path: Path, width: int, height: int, options: ShardOptions
) -> Iterator[tuple[np.ndarray, np.ndarray, LabelledFrame]]:
    """Frames with their thumbnails and labels."""
    waiting: deque[tuple[np.ndarray, np.ndarray]] = deque()

    def thumbnails(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for image in images:
            small = thumbnail(image)
            waiting.append((image, small))
            yield small

    max_size = max(Resize(width, height, options.short_side, options.short_side).scaled_size)
    images = _of_one_size(read_frames(path, max_size=max_size, threads=1))
    for labelled in label_frames(thumbnails(images)):
        image, small = waiting.popleft()
        yield image, small, labelled


def _of_one_size(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Streams may change their size on the way; the first size counts."""
    shape: tuple[int, ...] | None = None
    for image in images:
        shape = shape or image.shape
        yield (
            image
            if image.shape == shape
            else Resize(image.shape[1], image.shape[0], shape[1], shape[0]).apply(image)
        )
