"""Pictures that are not one flat view to their edges: panoramas, and frames with black bars."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_BLACK = 20 / 255  # limited-range black, and what compression makes of it
_LEAST_BARS = 2  # rows of a thumbnail of 64, on both sides: 6 % together
_LIT = 0.1  # mean grey value of pictures in which bars stand out


def black_bars(thumbnails: Sequence[Float[np.ndarray, "s s"]]) -> float | None:
    """The part of the pictures that black bars take, above and below or left and right, in all of them.

    Args:
        thumbnails: See `nas3r.reconstruction.motion.thumbnail`.

    Returns:
        In (0, 1); None if there are none.
    """
    brightest = np.max(np.stack(thumbnails), 0)
    if np.mean(thumbnails) < _LIT:
        return None
    for axis in (1, 0):
        dark = brightest.max(axis) < _BLACK
        if dark.all():
            return None
        first, last = int(np.argmin(dark)), int(np.argmin(dark[::-1]))
        if min(first, last) >= _LEAST_BARS and abs(first - last) <= 2:
            return (first + last) / len(dark)
    return None


def is_panorama(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a picture shows all directions: twice as wide as high, its left end going on at the right.

    Such pictures also have one colour along their upper and lower edge, which are single points.
    """
    height, width = image.shape[:2]
    if height < 16 or abs(width - 2 * height) > 0.01 * width:
        return False
    small = np.asarray(Image.fromarray(image).resize((256, 128), Image.Resampling.BOX), np.float64)
    step = np.abs(np.diff(small, axis=1)).mean((0, 2))
    seam = np.abs(small[:, 0] - small[:, -1]).mean()
    contrast = small.std(1).mean(-1)  # along each row
    poles = max(contrast[0], contrast[-1])
    return bool(seam <= np.percentile(step, 90) and poles < 0.35 * np.median(contrast))
