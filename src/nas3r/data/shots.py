"""Where one shot of a video ends and the next begins, found frame by frame with a short look ahead."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float32

from nas3r.data.analysis import LOST_MATCH, Alignment, align, reduce


class Label(Enum):
    """What a frame is, seen from the one before it."""

    CONTINUES = "continues"
    CUT = "cut"  # first frame of a new shot
    TRANSITION = "transition"  # part of a dissolve between two shots
    BLANK = "blank"  # one colour


@dataclass(frozen=True)
class LabelledFrame:
    """A frame in its shot.

    Attributes:
        label: What it is.
        alignment: How it follows from the frame before; None for the first of the video.
    """

    label: Label
    alignment: Alignment | None


LOOK_AHEAD = 32
"""Frames that are read before a frame is labelled."""

_BLANK_CONTRAST = 0.02  # standard deviation of brightness
_NEIGHBOURS = 3  # frames to each side that say how well frames match in this shot
_DROP = 0.25  # a match worse than the neighbours' by so much is a cut ...
_POOR_MATCH = 0.75  # ... if it is also poor in itself; unrelated frames reach this one time in a hundred

_HALF_DISSOLVES = (4, 8, 16)  # frames from the middle of a dissolve to its ends
_BLEND_FIT = 0.92  # fraction of the variance of the middle that a blend of the ends explains
_BLEND_COARSENESS = 4  # thumbnail pixels averaged before, so that motion within the dissolve matters less
_BLEND_RANGE = (0.15, 0.85)  # weights of a middle that is neither end


@dataclass
class _Frame:
    alignment: Alignment | None
    blank: bool
    transition: bool = False

    @property
    def match(self) -> float:
        return 1.0 if self.alignment is None else self.alignment.match


def label_frames(thumbnails: Iterable[Float32[np.ndarray, "h w"]]) -> Iterator[LabelledFrame]:
    """Labels the frames of a video in order; each answer comes `LOOK_AHEAD` frames after its frame.

    A hard cut is a frame that cannot be aligned with the one before it although its neighbours can. A
    dissolve is a frame that is a blend of two unrelated frames at equal distances before and after it.

    Args:
        thumbnails: As made by `nas3r.data.analysis.thumbnail`, all of one size.

    Yields:
        As many labels as thumbnails.
    """
    history: deque[np.ndarray] = deque(maxlen=2 * max(_HALF_DISSOLVES) + 1)
    frames: deque[_Frame] = deque()  # the last `before` of them are emitted but still neighbours
    before = 0
    for current in thumbnails:
        alignment = align(history[-1], current) if history else None
        history.append(current)
        frames.append(_Frame(alignment, blank=float(current.std()) < _BLANK_CONTRAST))
        _mark_dissolves(history, frames)
        if len(frames) - before > LOOK_AHEAD:
            yield _labelled(frames, before)
            before += 1
            if before > _NEIGHBOURS:
                frames.popleft()
                before -= 1
    for position in range(before, len(frames)):
        yield _labelled(frames, position)


def _labelled(frames: deque[_Frame], position: int) -> LabelledFrame:
    frame = frames[position]
    if frame.blank:
        label = Label.BLANK
    elif frame.transition:
        label = Label.TRANSITION
    else:
        label = Label.CUT if _is_cut(frames, position) else Label.CONTINUES
    return LabelledFrame(label, frame.alignment)


def _is_cut(frames: deque[_Frame], position: int) -> bool:
    match = frames[position].match
    around = range(max(0, position - _NEIGHBOURS), min(len(frames), position + _NEIGHBOURS + 1))
    usual = np.median([frames[i].match for i in around if i != position] or [1.0])
    return match < LOST_MATCH or (match < _POOR_MATCH and match < usual - _DROP)


def _mark_dissolves(history: deque[np.ndarray], frames: deque[_Frame]) -> None:
    for half in _HALF_DISSOLVES:
        if len(history) > 2 * half and _is_blend(history[-1 - 2 * half], history[-1 - half], history[-1]):
            for frame in list(frames)[-2 * half : -1]:
                frame.transition = True


def _is_blend(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> bool:
    """Whether the middle is a weighted mean of two unrelated frames."""
    coarse = (reduce(image, _BLEND_COARSENESS) for image in (first, middle, last))
    a, m, b = (image.ravel() - image.mean() for image in coarse)
    aa, bb, ab, mm = a @ a, b @ b, a @ b, m @ m
    if ab > 0.5 * np.sqrt(aa * bb) or min(aa, bb, mm) < a.size * _BLANK_CONTRAST**2:
        return False  # the ends are alike, or there is nothing to see
    determinant = aa * bb - ab * ab
    weight_a, weight_b = (
        (bb * (a @ m) - ab * (b @ m)) / determinant,
        (aa * (b @ m) - ab * (a @ m)) / determinant,
    )
    low, high = _BLEND_RANGE
    if not (low < weight_a < high and low < weight_b < high):
        return False
    rest = m - weight_a * a - weight_b * b
    return bool(rest @ rest < (1 - _BLEND_FIT) * mm) and align(first, last).match < LOST_MATCH + 0.2
