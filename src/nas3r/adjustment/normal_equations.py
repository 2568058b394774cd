"""The normal equations of bundle adjustment, with the points eliminated (Schur complement).

Triggs et al., "Bundle Adjustment - A Modern Synthesis", 1999, sec. 6.1. What is left grows with the number of
cameras, not with that of points.
"""

import numba
import numpy as np
from jaxtyping import Float, Int


@numba.njit(cache=True)
def reduced_equations(
    first: Int[np.ndarray, "p+1"],
    place: Int[np.ndarray, "m a"],
    by_camera: Float[np.ndarray, "m 2 a"],
    by_point: Float[np.ndarray, "m 2 3"],
    residual: Float[np.ndarray, "m 2"],
    weight: Float[np.ndarray, "m"],
    damping: float,
    size: int,
) -> tuple[
    Float[np.ndarray, "c c"], Float[np.ndarray, "c"], Float[np.ndarray, "p 3 3"], Float[np.ndarray, "p 3"]
]:
    """Normal equations of the cameras alone, and what gives the points back.

    Args:
        first: Of every point its first observation, which are sorted by point; last, their number.
        place: Of every observation the numbers of the camera parameters that move it; `size` for none.
        by_camera: Derivatives of the residuals by those.
        by_point: Derivatives by the point.
        residual: In pixels.
        weight: How much every observation counts.
        damping: Levenberg's and Marquardt's, of the points: relative to the diagonal.
        size: Number of the cameras' parameters.

    Returns:
        The undamped matrix with points eliminated, the right-hand side, the inverse of every point's own
        block, and its right-hand side.
    """
    count, width = len(first) - 1, place.shape[1]
    matrix = np.zeros((size + 1, size + 1))
    side = np.zeros(size + 1)
    inverse = np.zeros((count, 3, 3))
    own_side = np.zeros((count, 3))
    most = 0
    for p in range(count):
        most = max(most, first[p + 1] - first[p])
    mixed = np.zeros((most, width, 3))
    for p in range(count):
        block = np.zeros((3, 3))
        for o in range(first[p], first[p + 1]):
            for i in range(3):
                for r in range(2):
                    own_side[p, i] -= weight[o] * by_point[o, r, i] * residual[o, r]
                    for j in range(3):
                        block[i, j] += weight[o] * by_point[o, r, i] * by_point[o, r, j]
        for i in range(3):
            block[i, i] = block[i, i] * (1 + damping) + 1e-12
        inverse[p] = np.linalg.inv(block)
        for o in range(first[p], first[p + 1]):
            for a in range(width):
                x = place[o, a]
                for r in range(2):
                    side[x] -= weight[o] * by_camera[o, r, a] * residual[o, r]
                    for b in range(width):
                        matrix[x, place[o, b]] += weight[o] * by_camera[o, r, a] * by_camera[o, r, b]
                for i in range(3):
                    mixed[o - first[p], a, i] = weight[o] * (
                        by_camera[o, 0, a] * by_point[o, 0, i] + by_camera[o, 1, a] * by_point[o, 1, i]
                    )
        for o in range(first[p], first[p + 1]):
            through = mixed[o - first[p]] @ inverse[p]
            for a in range(width):
                x = place[o, a]
                for i in range(3):
                    side[x] -= through[a, i] * own_side[p, i]
                for q in range(first[p], first[p + 1]):
                    for b in range(width):
                        dot = 0.0
                        for i in range(3):
                            dot += through[a, i] * mixed[q - first[p], b, i]
                        matrix[x, place[q, b]] -= dot
    return matrix[:size, :size].copy(), side[:size].copy(), inverse, own_side


@numba.njit(cache=True)
def point_steps(
    first: Int[np.ndarray, "p+1"],
    place: Int[np.ndarray, "m a"],
    by_camera: Float[np.ndarray, "m 2 a"],
    by_point: Float[np.ndarray, "m 2 3"],
    weight: Float[np.ndarray, "m"],
    inverse: Float[np.ndarray, "p 3 3"],
    own_side: Float[np.ndarray, "p 3"],
    camera_step: Float[np.ndarray, "c"],
) -> Float[np.ndarray, "p 3"]:
    """Steps of the points that belong to a step of the cameras; arguments as above."""
    count, width, size = len(first) - 1, place.shape[1], len(camera_step)
    steps = np.zeros((count, 3))
    for p in range(count):
        left = own_side[p].copy()
        for o in range(first[p], first[p + 1]):
            for r in range(2):
                moved = 0.0
                for a in range(width):
                    if place[o, a] < size:
                        moved += by_camera[o, r, a] * camera_step[place[o, a]]
                for i in range(3):
                    left[i] -= weight[o] * by_point[o, r, i] * moved
        steps[p] = inverse[p] @ left
    return steps
