"""A folder of photos as textures: an atlas with averaged levels, read the same way by both renderers."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.ops import clamp01, floor, formula, maximum, minimum, mix, random_unit, to_int

PHOTO_SIZE = 128
_LEVELS = 6  # 128, 64, 32, 16, 8, 4 texels
_ROWS = 2 * PHOTO_SIZE
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def no_photos() -> Float[Tensor, "0 256 128 3"]:
    """An atlas without photos."""
    return torch.zeros(0, _ROWS, PHOTO_SIZE, 3)


def load_photos(folder: str | Path, limit: int = 512) -> Float[Tensor, "n 256 128 3"]:
    """Reads a folder's photos (sorted by name, at most `limit`), centre-cropped to squares, as linear
    colours.

    Level k of a photo has 128 / 2^k texels a side and lies below the levels before it in the atlas.

    Raises:
        ValueError: If the folder holds no readable photo.
    """
    from nas3r.io.images import load_image

    files = sorted(p for p in Path(folder).glob("**/*") if p.suffix.lower() in _SUFFIXES)[:limit]
    if not files:
        raise ValueError(f"{folder}: expected photos ({', '.join(sorted(_SUFFIXES))}), found none")
    atlas = torch.zeros(len(files), _ROWS, PHOTO_SIZE, 3)
    for photo, file in zip(atlas, files):
        level = _square(load_image(file))
        row = 0
        for _ in range(_LEVELS):
            size = level.shape[-1]
            photo[row : row + size, :size] = level[0].permute(1, 2, 0)
            row += size
            level = torch.nn.functional.avg_pool2d(level, 2)
    return atlas


def _square(image: np.ndarray) -> Float[Tensor, "1 3 128 128"]:
    """Central square, averaged down, as linear light (display values squared)."""
    h, w, _ = image.shape
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    crop = torch.from_numpy(image[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None]
    linear = (crop.float() / 255) ** 2
    return torch.nn.functional.interpolate(
        linear, (PHOTO_SIZE, PHOTO_SIZE), mode="bilinear", antialias=True
    ).clamp(0, 1)


@formula
def _bilinear(atlas, photo, u, v, level):
    """Colour of one level at (u, v) in [0, 1]."""
    size = 0.0 * u + PHOTO_SIZE
    row = 0.0 * u
    for k in range(_LEVELS - 1):
        above = minimum(maximum(level - k, 0.0), 1.0)  # 1 if the wanted level is above level k
        row = row + above * (PHOTO_SIZE >> k)
        size = size * (1.0 - 0.5 * above)
    x = minimum(maximum(u * size - 0.5, 0.0), size - 1.0)
    y = minimum(maximum(v * size - 0.5, 0.0), size - 1.0)
    x0, y0 = floor(x), floor(y)
    wx, wy = x - x0, y - y0
    i, j = to_int(row + y0), to_int(x0)
    down, right = to_int(row + minimum(y0 + 1.0, size - 1.0)), to_int(minimum(x0 + 1.0, size - 1.0))
    return (
        mix(
            mix(atlas[photo, i, j, 0], atlas[photo, i, right, 0], wx),
            mix(atlas[photo, down, j, 0], atlas[photo, down, right, 0], wx),
            wy,
        ),
        mix(
            mix(atlas[photo, i, j, 1], atlas[photo, i, right, 1], wx),
            mix(atlas[photo, down, j, 1], atlas[photo, down, right, 1], wx),
            wy,
        ),
        mix(
            mix(atlas[photo, i, j, 2], atlas[photo, i, right, 2], wx),
            mix(atlas[photo, down, j, 2], atlas[photo, down, right, 2], wx),
            wy,
        ),
    )


@formula
def photo_color(atlas, u, v, footprint, seed):
    """Linear colour of a photo at (u, v), one photo per unit, mirrored beyond; `seed` chooses the photo."""
    photo = to_int(random_unit(seed, 0 * seed, 0 * seed + 29) * atlas.shape[0])
    texels = footprint * PHOTO_SIZE
    level = 0.0 * u
    for k in range(_LEVELS - 1):
        level = level + clamp01(texels / (1 << k) - 1.0)
    below = floor(level)
    weight = level - below
    above = minimum(below + 1.0, _LEVELS - 1.0)
    x = abs(u - 2.0 * floor(0.5 * u + 0.5))
    y = abs(v - 2.0 * floor(0.5 * v + 0.5))
    r0, g0, b0 = _bilinear(atlas, photo, x, y, below)
    r1, g1, b1 = _bilinear(atlas, photo, x, y, above)
    return mix(r0, r1, weight), mix(g0, g1, weight), mix(b0, b1, weight)
