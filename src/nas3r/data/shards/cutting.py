"""Clips of a video: one per shot, without duplicates, static shots and frames of one colour."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nas3r.data.analysis import align, thumbnail
from nas3r.data.shards.options import ShardOptions
from nas3r.data.shards.records import VideoRecord
from nas3r.data.shots import Label, LabelledFrame, label_frames
from nas3r.data.sources.decoding import small_size
from nas3r.io.images import Resize, encode_jpeg
from nas3r.io.video import read_frames, video_info

_EXTENT_EVERY = 8  # frames between comparisons with the first frame


@dataclass
class CutClip:
    """A clip in the making.

    Attributes:
        first: Frame of the video that it begins with.
        frames: JPEG files.
        numbers: Their frames in the video.
        travel: Path length of the image content up to each frame, in image widths.
        extent: Largest motion against the first frame.
        seen: Frames of the video that went into it, duplicates included.
    """

    first: int
    frames: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    travel: list[float] = field(default_factory=list)
    extent: float = 0.0
    seen: int = 0
    size: tuple[int, int] = (0, 0)
    fps: float = 0.0
    start: np.ndarray | None = None
    last: np.ndarray | None = None

    def add(self, number: int, image: np.ndarray, small: np.ndarray, options: ShardOptions) -> bool:
        """Adds a frame unless it is a duplicate of the last one kept; says whether it did."""
        self.seen += 1
        motion = 0.0
        if self.last is not None:
            step = align(self.last, small)
            if step.motion < options.min_motion:
                return False
            motion = step.motion
        if self.start is None:
            self.start, self.size = small, (image.shape[1], image.shape[0])
        elif len(self.frames) % _EXTENT_EVERY == 0 or len(self.frames) < options.min_frames:
            self.extent = max(self.extent, align(self.start, small).motion)
        self.frames.append(encode_jpeg(image, options.quality))
        self.numbers.append(number)
        self.travel.append((self.travel[-1] if self.travel else 0.0) + motion)
        self.last = small
        return True

    def fault(self, options: ShardOptions) -> str:
        """Why the clip is left out; empty if it is good."""
        if len(self.frames) < options.min_frames:
            return "static" if self.seen >= options.min_frames else "too short"
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
    clip = CutClip(0)
    info = video_info(path)
    every = max(1, round(info.fps / options.fps)) if options.fps and info.fps else 1
    for number, (image, small, labelled) in enumerate(_labelled(path, info.width, info.height, options)):
        whole = len(clip.frames) >= options.max_frames
        if labelled.label is not Label.CONTINUES or whole:
            if _is_good(clip, options, record):
                yield clip
            clip = CutClip(number)
        clip.fps = info.fps / every
        if labelled.label in (Label.BLANK, Label.TRANSITION):
            record.count(labelled.label.value)
        elif number % every:
            record.count("thinned out")
        elif not clip.add(number, image, small, options):
            record.count("duplicate")
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

    max_size = max(small_size(height, width, (options.short_side, options.short_side)))
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
