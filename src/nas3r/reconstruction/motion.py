"""How two images of a scene differ, measured on thumbnails without any network: block matching.

This is what frames are chosen by and what warnings about overlap and parallax rest on. It needs no trained
weights, so it also tells when a prediction should not be trusted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

SIZE = 64  # side of a thumbnail, whatever the aspect ratio
_BLOCK = 8
_RADIUS = 10  # largest displacement searched, pixels of the thumbnail: 16 % of the image
_FAR = 2 * _RADIUS / SIZE  # what images that do not match are said to have moved
# A block matches if its best cost is below this part of its cost without any displacement model, i.e. of
# its contrast. Unrelated images reach about 0.8, two views of one place 0.1 to 0.5.
_GOOD_COST = 0.55
_SMOOTH = 2.0 / 255  # contrast below which a block says nothing (camera noise)


def thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "s s"]:
    """Grey values in [0, 1], squeezed into a square."""
    small = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("L"), np.float32) / 255


def sharpness(image: UInt8[np.ndarray, "h w 3"]) -> float:
    """Fine over coarse contrast, at 256 pixels on the long side; falls with blur, not with brightness."""
    scale = 256 / max(image.shape[:2])
    size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    grey = np.asarray(
        Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX, reducing_gap=2.0), np.float32
    )
    fine = np.abs(4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:])
    coarse = np.abs(grey[4:] - grey[:-4]).mean() + np.abs(grey[:, 4:] - grey[:, :-4]).mean()
    return float(fine.mean() / (coarse + 1.0))


@dataclass(frozen=True)
class Motion:
    """How one image moved into another.

    Attributes:
        shift: Median displacement, as a part of the image size.
        parallax: Displacement left after the best homography, 75th percentile, as a part of the image size:
            what a camera that only turns or zooms does not cause.
        overlap: Part of the textured blocks that were found again, in [0, 1].
        difference: Mean absolute difference of the grey values, in [0, 1].
    """

    shift: float
    parallax: float
    overlap: float
    difference: float

    @property
    def path(self) -> float:
        """Length of the step for spreading views: parallax counts on top of mere displacement."""
        if self.overlap < 0.4:
            return _FAR
        return max(self.shift - 0.25 / SIZE, 0) + max(self.parallax - 0.25 / SIZE, 0)


def measure_motion(first: Float[np.ndarray, "s s"], second: Float[np.ndarray, "s s"]) -> Motion:
    """Displacement between two thumbnails by exhaustive matching of 8 x 8 blocks."""
    # Without their local mean, so that exposure and vignetting do not count as motion.
    a, b = (image - _blur(image) for image in (first, second))
    cost = _block_costs(a, b)
    shifts = _shifts()
    best = cost.argmin(0)
    contrast = np.abs(a).reshape(_BLOCKS, _BLOCK, _BLOCKS, _BLOCK).mean((1, 3)).ravel()
    textured = contrast > _SMOOTH
    found = textured & (cost.min(0) < _GOOD_COST * 1.4 * contrast)
    difference = float(np.abs(first - second).mean())
    if textured.sum() == 0:
        return Motion(0.0, 0.0, 1.0 if difference < _SMOOTH else 0.0, difference)
    overlap = float(found.sum() / textured.sum())
    if found.sum() < 6:  # an affine motion has six unknowns, three blocks; twice that to say anything
        return Motion(_FAR, 0.0, overlap, difference)
    flow = shifts[best[found]] + _subpixel(cost, best)[found]
    places = _places(found)
    residual = flow - _plane_flow(places, flow)
    return Motion(
        float(np.median(np.linalg.norm(flow, axis=1))) / SIZE,
        float(np.percentile(np.linalg.norm(residual, axis=1), 75)) / SIZE,
        overlap,
        difference,
    )


_BLOCKS = SIZE // _BLOCK
_DIAMETER = 2 * _RADIUS + 1


def _shifts() -> Float[np.ndarray, "d2 2"]:
    steps = np.arange(-_RADIUS, _RADIUS + 1)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2).astype(np.float64)


def _blur(image: Float[np.ndarray, "s s"], radius: int = 6) -> Float[np.ndarray, "s s"]:
    """Box mean over (2 radius + 1)^2 pixels, edges repeated."""
    padded = np.pad(image.astype(np.float64), radius + 1, mode="edge").cumsum(0).cumsum(1)
    n = 2 * radius + 1
    total = padded[n:-1, n:-1] - padded[: -n - 1, n:-1] - padded[n:-1, : -n - 1] + padded[: -n - 1, : -n - 1]
    return (total / n**2).astype(np.float32)


def _block_costs(a: Float[np.ndarray, "s s"], b: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "d2 blocks"]:
    """Mean absolute difference of every block of `a` and `b` displaced by every shift."""
    padded = np.pad(b, _RADIUS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIZE, SIZE))  # [d, d, s, s]
    difference = np.abs(windows - a).reshape(_DIAMETER**2, _BLOCKS, _BLOCK, _BLOCKS, _BLOCK)
    cost = difference.mean((2, 4)).reshape(_DIAMETER**2, -1)
    return np.where(np.isnan(cost), np.inf, cost)  # blocks that leave the image are not compared


def _subpixel(cost: Float[np.ndarray, "d2 blocks"], best: np.ndarray) -> Float[np.ndarray, "blocks 2"]:
    """Minimum of a parabola through the best cost and its neighbours, per axis."""
    grid = cost.reshape(_DIAMETER, _DIAMETER, -1)
    row, column = np.divmod(best, _DIAMETER)
    block = np.arange(cost.shape[1])
    offsets = np.zeros((cost.shape[1], 2))
    for axis, index in enumerate((row, column)):
        inside = (index > 0) & (index < _DIAMETER - 1)
        i = index.clip(1, _DIAMETER - 2)
        low, middle, high = (
            grid[i + d, column, block] if axis == 0 else grid[row, i + d, block] for d in (-1, 0, 1)
        )
        usable = inside & np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            curvature = low - 2 * middle + high
            offset = np.where(curvature > 1e-9, 0.5 * (low - high) / np.where(curvature > 0, curvature, 1), 0)
        offsets[:, axis] = np.where(usable, offset, 0).clip(-0.5, 0.5)
    return offsets


def matched_homography(
    first: Float[np.ndarray, "s s"], second: Float[np.ndarray, "s s"]
) -> Float[np.ndarray, "3 3"] | None:
    """The homography that most matched blocks of two thumbnails follow; None where too few match.

    It maps (x, y, 1) to a multiple of (x, y, 1), coordinates from -1 to 1.
    """
    a, b = (image - _blur(image) for image in (first, second))
    cost = _block_costs(a, b)
    best = cost.argmin(0)
    contrast = np.abs(a).reshape(_BLOCKS, _BLOCK, _BLOCKS, _BLOCK).mean((1, 3)).ravel()
    found = (contrast > _SMOOTH) & (cost.min(0) < _GOOD_COST * 1.4 * contrast)
    if found.sum() < 6:
        return None
    flow = _shifts()[best[found]] + _subpixel(cost, best)[found]
    places = _places(found)
    h = _plane(places, flow)
    rows = [h[4], h[3], h[5]], [h[1], h[0], h[2]], [h[7], h[6], 1.0]
    return np.array(rows)


def _places(found: Bool[np.ndarray, "blocks"]) -> Float[np.ndarray, "n 2"]:
    """(row, column) of the middles of blocks, from -1 to 1: least squares are then well conditioned."""
    rows, columns = np.divmod(np.flatnonzero(found), _BLOCKS)
    return (np.stack([rows, columns], -1) - (_BLOCKS - 1) / 2) / (_BLOCKS / 2)


def _plane_flow(places: Float[np.ndarray, "n 2"], flow: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """The flow of the homography that explains most of a flow: what a camera causes that turns or zooms."""
    return (_moved(places, _plane(places, flow)) - places) * _SIZE_OF_UNIT


def _plane(places: Float[np.ndarray, "n 2"], flow: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "8"]:
    """The first eight entries, by rows, of the homography that explains most of a flow; the ninth is 1.

    Linear once multiplied by the denominator, by rounds of reweighted least squares (weights 1 / residual).
    With few blocks the last two are 0: an affine motion.

    Args:
        places: Of the blocks, (row, column), from -1 to 1.
        flow: In pixels of the thumbnail.
    """
    target = places + flow / _SIZE_OF_UNIT
    point = np.concatenate([places, np.ones((len(places), 1))], 1)
    none = np.zeros_like(point)
    rows = [
        np.concatenate([point, none, -target[:, :1] * places], 1),
        np.concatenate([none, point, -target[:, 1:] * places], 1),
    ]
    unknowns = 8 if len(places) >= _LEAST_FOR_HOMOGRAPHY else 6
    design = np.stack(rows, 1)[..., :unknowns]
    weights, h = np.ones(len(places)), np.zeros(8)
    for _ in range(_ROUNDS):
        w = weights[:, None] ** 0.5
        weighted, wanted = (design * w[..., None]).reshape(-1, unknowns), (target * w).reshape(-1)
        h[:unknowns], *_ = np.linalg.lstsq(weighted, wanted, rcond=None)
        left = np.linalg.norm(target - _moved(places, h), axis=1) * _SIZE_OF_UNIT
        weights = 1 / np.maximum(left, 0.25)
    return h


def _moved(places: Float[np.ndarray, "n 2"], h: Float[np.ndarray, "8"]) -> Float[np.ndarray, "n 2"]:
    depth = np.maximum(1 + places @ h[6:], 0.1)[:, None]
    return np.stack([places @ h[:2] + h[2], places @ h[3:5] + h[5]], -1) / depth


_SIZE_OF_UNIT = SIZE / 2  # thumbnail pixels
_LEAST_FOR_HOMOGRAPHY = 16  # blocks: twice the unknowns, two figures each
_ROUNDS = 6
