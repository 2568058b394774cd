"""How unlike two views are where a plane is: one minus the weighted correlation of windows.

A plane is linear in inverse depth: w(x, y) = w0 + gx (x - x0) + gy (y - y0) in pixels of the view. It maps
pixels of the view to those of another by a homography, M p + t w(p), with M = K' R inv(K) and t = K' t'.

Samples of the window count less the more their grey value differs from the centre's and the farther they are
(bilateral weights), as in Schönberger et al., "Pixelwise View Selection for Unstructured Multi-View Stereo",
ECCV 2016. Variances get a small constant, so that windows without texture are unlike everything alike: what
decides there is where the search began.
"""

from typing import Any

import numba
import numpy as np
from jaxtyping import Float

RADIUS, STRIDE = 4, 2  # pixels
SAMPLES = (2 * RADIUS // STRIDE + 1) ** 2
_CENTER = SAMPLES // 2
_GREY_SIGMA = 0.12
_PLACE_SIGMA = 4.0  # pixels
_NOISE = 2e-5  # variance, of grey values in [0, 1]
WORST = 1.0  # nothing in common; ditto where the other view does not show it

inlined: Any = numba.njit(nogil=True, error_model="numpy", fastmath=True, inline="never")


@inlined
def read_window(grey, row, column, values, weights):
    """Fills in grey values around a pixel, less their weighted mean, and weights that add up to one.

    Returns:
        Their weighted variance.
    """
    h, w = grey.shape
    center = grey[row, column]
    total = np.float32(0)
    mean = np.float32(0)
    i = 0
    for dy in range(-RADIUS, RADIUS + 1, STRIDE):
        y = min(max(row + dy, 0), h - 1)
        for dx in range(-RADIUS, RADIUS + 1, STRIDE):
            x = min(max(column + dx, 0), w - 1)
            value = grey[y, x]
            off = (value - center) / np.float32(_GREY_SIGMA)
            place = np.float32(dx * dx + dy * dy) / np.float32(_PLACE_SIGMA * _PLACE_SIGMA)
            weight = np.exp(np.float32(-0.5) * (off * off + place))
            values[i] = value
            weights[i] = weight
            total += weight
            mean += weight * value
            i += 1
    mean /= total
    variance = np.float32(0)
    for i in range(SAMPLES):
        weights[i] /= total
        values[i] -= mean
        variance += weights[i] * values[i] * values[i]
    return variance


@inlined
def window_cost(values, weights, variance, x, y, w, gx, gy, warp, grey):
    """One minus the correlation of a window with what another view shows of its plane, in [0, 1].

    Args:
        values: Of the window, from `read_window`; so are `weights` and `variance`.
        x: Of its centre, in pixels, the first pixel's centre at 0.5.
        y: Ditto.
        w: Inverse depth there.
        gx: What it gains per pixel to the right.
        gy: Ditto, downwards.
        warp: M by rows, then t [12].
        grey: The other view.
    """
    h, width = grey.shape
    # Place in the other view, homogeneous, at the first sample; then what one step adds.
    step = np.float32(STRIDE)
    right_x = step * (warp[0] + gx * warp[9])
    right_y = step * (warp[3] + gx * warp[10])
    right_z = step * (warp[6] + gx * warp[11])
    down_x = step * (warp[1] + gy * warp[9])
    down_y = step * (warp[4] + gy * warp[10])
    down_z = step * (warp[7] + gy * warp[11])
    at_x = warp[0] * x + warp[1] * y + warp[2] + w * warp[9]
    at_y = warp[3] * x + warp[4] * y + warp[5] + w * warp[10]
    at_z = warp[6] * x + warp[7] * y + warp[8] + w * warp[11]
    if at_z <= 0 or at_x < 0 or at_y < 0 or at_x > at_z * width or at_y > at_z * h:
        return np.float32(WORST)
    half = np.float32(RADIUS // STRIDE)
    row_x = at_x - half * (right_x + down_x)
    row_y = at_y - half * (right_y + down_y)
    row_z = at_z - half * (right_z + down_z)
    limit_x, limit_y = np.float32(width - 1.001), np.float32(h - 1.001)
    mean = np.float32(0)
    square = np.float32(0)
    product = np.float32(0)
    side = 2 * RADIUS // STRIDE + 1
    for j in range(side):
        px, py, pz = row_x, row_y, row_z
        for k in range(side):
            if pz <= 0:
                return np.float32(WORST)
            inverse = np.float32(1) / pz
            u = min(max(px * inverse - np.float32(0.5), np.float32(0)), limit_x)
            v = min(max(py * inverse - np.float32(0.5), np.float32(0)), limit_y)
            c, r = int(u), int(v)
            fu, fv = u - np.float32(c), v - np.float32(r)
            top = grey[r, c] + fu * (grey[r, c + 1] - grey[r, c])
            bottom = grey[r + 1, c] + fu * (grey[r + 1, c + 1] - grey[r + 1, c])
            value = top + fv * (bottom - top)
            weighted = weights[j * side + k] * value
            mean += weighted
            square += weighted * value
            product += weighted * values[j * side + k]
            px += right_x
            py += right_y
            pz += right_z
        row_x += down_x
        row_y += down_y
        row_z += down_z
    other = max(square - mean * mean, np.float32(0))
    noise = np.float32(_NOISE)
    alike = product / np.sqrt((variance + noise) * (other + noise))
    return min(max(np.float32(1) - alike, np.float32(0)), np.float32(WORST))


def slow_cost(
    grey: Float[np.ndarray, "h w"],
    other: Float[np.ndarray, "h2 w2"],
    matrix: Float[np.ndarray, "3 3"],
    shift: Float[np.ndarray, "3"],
    pixel: tuple[int, int],
    plane: tuple[float, float, float],
) -> float:
    """The same, slowly and readably: the twin that the fast one is tested against.

    Args:
        grey: The view.
        other: The other view.
        matrix: M above.
        shift: t above.
        pixel: Row and column of the window's centre.
        plane: Inverse depth there, and what it gains per pixel to the right and downwards.
    """
    row, column = pixel
    offsets = np.arange(-RADIUS, RADIUS + 1, STRIDE)
    dy, dx = (g.ravel() for g in np.meshgrid(offsets, offsets, indexing="ij"))
    h, w = grey.shape
    values = grey[np.clip(row + dy, 0, h - 1), np.clip(column + dx, 0, w - 1)].astype(float)
    weights = np.exp(
        -0.5 * ((values - values[_CENTER]) ** 2 / _GREY_SIGMA**2 + (dx**2 + dy**2) / _PLACE_SIGMA**2)
    )
    weights /= weights.sum()
    points = np.stack([column + 0.5 + dx, row + 0.5 + dy, np.ones(SAMPLES)], -1)
    inverse_depth = plane[0] + plane[1] * dx + plane[2] * dy
    seen = points @ matrix.T + inverse_depth[:, None] * shift
    x, y = (seen[:, :2] / seen[:, 2:]).T
    h, w = other.shape
    inside = 0 <= x[_CENTER] <= w and 0 <= y[_CENTER] <= h
    if (seen[:, 2] <= 0).any() or not inside:
        return WORST
    x, y = np.clip(x - 0.5, 0, w - 1.001), np.clip(y - 0.5, 0, h - 1.001)
    c, r = x.astype(int), y.astype(int)
    top = (1 - (x - c)) * other[r, c] + (x - c) * other[r, c + 1]
    bottom = (1 - (x - c)) * other[r + 1, c] + (x - c) * other[r + 1, c + 1]
    shown = (1 - (y - r)) * top + (y - r) * bottom
    values -= weights @ values
    shown -= weights @ shown
    variances = (weights @ values**2 + _NOISE) * (weights @ shown**2 + _NOISE)
    return float(np.clip(1 - weights @ (values * shown) / np.sqrt(variances), 0, WORST))
