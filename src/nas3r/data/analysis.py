"""How far the image moves from frame to frame, and where one shot ends and another begins.

Everything works on small grey thumbnails. The motion between two frames is that of the affine map (pan,
zoom, turn, shear) that aligns them best, found by Gauss-Newton on brightness differences from coarse to fine
(Lucas & Kanade 1981; Bergen et al. 1992), with a change of gain and offset allowed so that automatic exposure
does not count as motion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from nas3r.data.clips import Clip

THUMBNAIL_WIDTH = 64

LOST_MATCH = 0.4
"""Below this correlation two frames count as unrelated: their alignment means nothing."""

LOST_MOTION = 0.5
"""Motion assigned to unrelated frames, in image widths."""

_SURE_MATCH = 0.8  # below it, a second starting value is tried
_LEVELS = (4, 2, 1)  # thumbnail pixels per pixel of each pyramid level
_ITERATIONS = 6
_SETTLED = 2e-5  # image widths, far below what counts as motion
_LEAST_OVERLAP = 0.5  # fraction of the image; little overlaps of unrelated frames can match by chance


@dataclass(frozen=True)
class Alignment:
    """How one frame follows from another.

    Attributes:
        motion: Mean displacement of the image content, in image widths.
        match: Correlation of the aligned frames where they overlap, 1 for equal content.
    """

    motion: float
    match: float

    @property
    def related(self) -> bool:
        """Whether the frames show the same scene, as far as the alignment tells."""
        return self.match >= LOST_MATCH


def thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h2 w2"]:
    """Grey miniature, `THUMBNAIL_WIDTH` wide (portrait images: high), in [0, 1]."""
    height, width = image.shape[:2]
    scale = THUMBNAIL_WIDTH / max(height, width)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    small = Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def align(first: Float32[np.ndarray, "h w"], second: Float32[np.ndarray, "h w"]) -> Alignment:
    """Finds the affine motion between two thumbnails of one size."""
    affine, match = _coarse_to_fine(first, second, np.zeros(6))
    if match < _SURE_MATCH:  # a large shift may be out of reach from rest
        other, other_match = _coarse_to_fine(first, second, _phase_shift(first, second))
        if other_match > match:
            affine, match = other, other_match
    x, y = _coordinates(*first.shape)
    moved = np.hypot(affine[0] + affine[1] * x + affine[2] * y, affine[3] + affine[4] * x + affine[5] * y)
    motion = min(float(moved.mean()), LOST_MOTION)
    return Alignment(motion if match >= LOST_MATCH else LOST_MOTION, match)


def travel(thumbnails: Sequence[Float32[np.ndarray, "h w"]]) -> Float[np.ndarray, "n"]:
    """Path length of the image content up to each frame, in image widths, beginning with 0."""
    moves = [align(a, b).motion for a, b in pairwise(thumbnails)]
    return np.concatenate([[0.0], np.cumsum(moves)])


def clip_travel(clip: Clip) -> Float[np.ndarray, "n"]:
    """`travel` of a clip: as recorded in its attribute of that name, else measured on all frames."""
    recorded = getattr(clip, "travel", None)
    if recorded is not None:
        return recorded
    return travel([thumbnail(clip.read([i])[0].permute(1, 2, 0).numpy()) for i in range(len(clip))])


def _coarse_to_fine(first: np.ndarray, second: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Affine motion, from a starting value, and the correlation under it.

    The displacement in image widths of the point (x, y) is affine[:3] . (1, x, y), affine[3:] . (1, x, y).
    """
    match = 0.0
    for level in _LEVELS:
        affine, match = _refine(reduce(first, level), reduce(second, level), affine)
    return affine, match


def _phase_shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The shift of the strongest peak of the phase correlation (Kuglin & Hines 1975), as an affine motion."""
    window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
    spectrum = np.conj(np.fft.fft2((a - a.mean()) * window)) * np.fft.fft2((b - b.mean()) * window)
    peaks = np.fft.ifft2(spectrum / (np.abs(spectrum) + 1e-9)).real
    shift = np.array(np.unravel_index(int(peaks.argmax()), peaks.shape))
    dy, dx = np.where(shift > np.array(a.shape) // 2, shift - a.shape, shift) / a.shape[1]
    return np.array([dx, 0, 0, dy, 0, 0])


def _refine(
    a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"], affine: np.ndarray
) -> tuple[np.ndarray, float]:
    """Gauss-Newton at one level; returns the affine motion and the correlation under it."""
    height, width = a.shape
    x, y = _coordinates(height, width)
    match = 0.0
    for _ in range(_ITERATIONS):
        warped, slope_x, slope_y, inside = _warp(b, affine, x, y)
        if inside.mean() < _LEAST_OVERLAP:
            return affine, 0.0
        ones = np.ones_like(x)
        # columns: six of the motion, then gain and offset
        jacobian = np.stack(
            [slope_x, slope_x * x, slope_x * y, slope_y, slope_y * x, slope_y * y, -a, -ones], -1
        )[inside]
        residual = (a - warped)[inside]
        normal = jacobian.T @ jacobian
        normal += np.diag(1e-4 * normal.diagonal() + 1e-9)
        update = np.linalg.solve(normal, jacobian.T @ residual)[:6]
        affine = affine + update
        if np.abs(update).max() < _SETTLED:
            break
    warped, _, _, inside = _warp(b, affine, x, y)
    if inside.mean() >= _LEAST_OVERLAP:
        match = _correlation(a[inside], warped[inside])
    return affine, match


def _warp(b: np.ndarray, affine: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """`b` sampled at the displaced points, its slopes there per image width, and which points are inside."""
    height, width = b.shape
    column = (x + affine[0] + affine[1] * x + affine[2] * y) * width + (width - 1) / 2
    row = (y + affine[3] + affine[4] * x + affine[5] * y) * width + (height - 1) / 2
    inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
    left = np.clip(np.floor(column), 0, width - 2).astype(np.intp)
    top = np.clip(np.floor(row), 0, height - 2).astype(np.intp)
    fx, fy = np.clip(column - left, 0, 1), np.clip(row - top, 0, 1)
    b00, b01, b10, b11 = b[top, left], b[top, left + 1], b[top + 1, left], b[top + 1, left + 1]
    upper, lower = b00 + (b01 - b00) * fx, b10 + (b11 - b10) * fx
    slope_x = ((b01 - b00) * (1 - fy) + (b11 - b10) * fy) * width
    return upper + (lower - upper) * fy, slope_x, (lower - upper) * width, inside


def _coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of pixel centres from the middle of the image, in image widths."""
    y, x = np.mgrid[:height, :width]
    return (x - (width - 1) / 2) / width, (y - (height - 1) / 2) / width


def reduce(image: Float32[np.ndarray, "h w"], factor: int) -> Float32[np.ndarray, "h2 w2"]:
    """Means of square blocks; what does not fill a block at the right and lower edge is cut off."""
    height, width = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return blocks.mean((1, 3))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 1e-6 * a.size else 1.0
