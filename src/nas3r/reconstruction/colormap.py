"""Depth as colour, for people."""

import numpy as np
from jaxtyping import Float, UInt8

# Far to near: dark blue, purple, red, orange, pale yellow; lightness grows evenly, so it also reads in grey.
_ANCHORS = np.array(
    [
        [12, 10, 46],
        [55, 22, 110],
        [110, 28, 128],
        [165, 40, 116],
        [214, 68, 86],
        [242, 112, 58],
        [252, 166, 55],
        [251, 216, 96],
        [252, 250, 190],
    ],
    np.float64,
)
_UNKNOWN = np.array([128, 128, 128], np.uint8)


def depth_limits(depth: Float[np.ndarray, "*shape"]) -> tuple[float, float]:
    """Near and far depth between which colours are spread: the 2nd and 98th percentile of what is known."""
    known = depth[depth > 0]
    if known.size == 0:
        return 1.0, 2.0
    near, far = np.percentile(known, [2, 98])
    return float(near), float(max(far, near * 1.001))


def colorize_depth(
    depth: Float[np.ndarray, "*hw"], limits: tuple[float, float]
) -> UInt8[np.ndarray, "*hw 3"]:
    """Colours of depths: near is bright, evenly spaced in inverse depth; grey where unknown (0).

    Args:
        depth: z-depth.
        limits: Near and far depth, see `depth_limits`.
    """
    near, far = limits
    inverse = 1 / np.where(depth > 0, depth, np.inf)
    level = ((inverse - 1 / far) / (1 / near - 1 / far)).clip(0, 1) * (len(_ANCHORS) - 1)
    low = np.minimum(level.astype(np.int64), len(_ANCHORS) - 2)
    part = (level - low)[..., None]
    color = _ANCHORS[low] * (1 - part) + _ANCHORS[low + 1] * part
    return np.where(depth[..., None] > 0, color.round().astype(np.uint8), _UNKNOWN)
