"""Whether a camera only turned: two pictures that one homography maps onto each other show no depth."""

import numpy as np
from jaxtyping import Float

from nas3r.reconstruction.motion import SIZE, matched_homography

_BLOCK = 8  # pixels
_ROUNDS = (8, 8, 12)  # of Gauss-Newton, at a quarter, a half and all of the size
_TEXTURED = 4 / 255  # mean absolute contrast of a block that can disagree
_AGREES = 0.45  # of a block's contrast: what resampling and compression leave after a warp that is right
_LEAST_BLOCKS = 12


def explained_by_turning(first: Float[np.ndarray, "s s"], second: Float[np.ndarray, "s s"]) -> float | None:
    """The part of the textured blocks of one picture that a homography finds again in the other.

    The homography is the one whose warp differs least, found by Gauss-Newton from coarse to fine with robust
    weights; it needs no calibration, since K R K^-1 of any camera is one.

    Args:
        first: Grey values in [0, 1] of a square of 128 pixels a side.
        second: Ditto, of the same size.

    Returns:
        In [0, 1]; None if the pictures share too little to say.
    """
    small = [_shrunk(image, len(image) // SIZE) for image in (first, second)]
    starts = [np.eye(3), matched_homography(small[0], small[1])]
    found = [_explained(first, second, start) for start in starts if start is not None]
    return max((part for part in found if part is not None), default=None)


def _explained(first: np.ndarray, second: np.ndarray, h: np.ndarray) -> float | None:
    for level, rounds in zip((4, 2, 1), _ROUNDS, strict=True):
        a, b = (_local(_shrunk(image, level)) for image in (first, second))
        h = _aligned(a, b, h, rounds)
    a, b = _local(first), _local(second)
    warped, inside = _warp(b, h)
    size = len(a) // _BLOCK

    def blocks(values: np.ndarray) -> np.ndarray:
        return values.reshape(size, _BLOCK, size, _BLOCK).mean((1, 3))

    contrast = blocks(np.abs(a))
    usable = (blocks(inside.astype(float)) == 1) & (contrast > _TEXTURED)
    if usable.sum() < _LEAST_BLOCKS:
        return None
    return float((blocks(np.abs(warped - a))[usable] < _AGREES * contrast[usable]).mean())


def _shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    size = len(image) // factor
    return image.reshape(size, factor, size, factor).mean((1, 3))


def _local(image: np.ndarray) -> np.ndarray:
    """Without the local mean, so that exposure and vignetting do not count."""
    radius = max(2, len(image) // 10)
    padded = np.pad(image.astype(np.float64), radius + 1, mode="edge").cumsum(0).cumsum(1)
    n = 2 * radius + 1
    total = padded[n:-1, n:-1] - padded[: -n - 1, n:-1] - padded[n:-1, : -n - 1] + padded[: -n - 1, : -n - 1]
    return image - total / n**2


def _warp(image: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of an image at the places a homography gives for each pixel, and whether they are inside."""
    x, y = _mapped(len(image), h)
    size = len(image)
    inside = (x >= 0) & (y >= 0) & (x <= size - 1) & (y <= size - 1)
    x, y = np.clip(x, 0, size - 1.001), np.clip(y, 0, size - 1.001)
    i, j = y.astype(int), x.astype(int)
    u, v = x - j, y - i
    upper = image[i, j] * (1 - u) + image[i, j + 1] * u
    lower = image[i + 1, j] * (1 - u) + image[i + 1, j + 1] * u
    return upper * (1 - v) + lower * v, inside


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates from -1 to 1, which no change of size changes."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    return np.meshgrid(axis, axis)


def _mapped(size: int, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _grid(size)
    depth = np.maximum(h[2, 0] * x + h[2, 1] * y + h[2, 2], 0.05)
    px, py = (h[k, 0] * x + h[k, 1] * y + h[k, 2] for k in (0, 1))
    return ((px / depth + 1) * size - 1) / 2, ((py / depth + 1) * size - 1) / 2


def _aligned(a: np.ndarray, b: np.ndarray, h: np.ndarray, rounds: int) -> np.ndarray:
    """The homography after some rounds of Gauss-Newton; weights 1 / residual keep what moves apart out."""
    size = len(a)
    x, y = _grid(size)
    gy, gx = np.gradient(b, 2 / size)
    for _ in range(rounds):
        warped, inside = _warp(b, h)
        dx, dy = (_warp(g, h)[0] for g in (gx, gy))
        depth = np.maximum(h[2, 0] * x + h[2, 1] * y + h[2, 2], 0.05)
        u, v = ((h[k, 0] * x + h[k, 1] * y + h[k, 2]) / depth for k in (0, 1))
        slope = -(dx * u + dy * v)
        rows = [dx * x, dx * y, dx, dy * x, dy * y, dy, slope * x, slope * y]
        jacobian = np.stack([row / depth for row in rows], -1)[inside]
        residual = (a - warped)[inside]
        if len(residual) < 8 * 8:
            return h
        weight = 1 / np.maximum(np.abs(residual), np.median(np.abs(residual)) + 1e-4)
        normal = jacobian.T @ (jacobian * weight[:, None])
        damped = normal + 1e-3 * np.diag(np.diag(normal)) + 1e-9 * np.eye(8)
        step = np.linalg.solve(damped, jacobian.T @ (weight * residual))
        h = h + np.append(step, 0).reshape(3, 3)
    return h
