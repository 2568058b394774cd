"""Points from where at least two views with known cameras saw them."""

import numpy as np
from jaxtyping import Float

from nas3r.adjustment.bundle import State
from nas3r.adjustment.tracks import Tracks

_UNBEND_STEPS = 12
_LEAST_SLOPE = 0.1  # of what is seen by what is there, at the border of what a lens shows


def triangulate(state: State, tracks: Tracks) -> Float[np.ndarray, "p 3"]:
    """The points nearest to the rays of their observations, by squared distance weighted by nearness.

    Args:
        state: Whose cameras are used.
        tracks: What was seen.
    """
    directions = view_rays(state, tracks)
    centers = state.centers[tracks.view]
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    points = _solve(tracks, across, centers, np.ones(len(centers)))
    for _ in range(2):  # angles count, not distances: nearer cameras see more exactly
        away = np.linalg.norm(points[tracks.point] - centers, axis=1)
        points = _solve(tracks, across, centers, 1 / np.maximum(away, 1e-9) ** 2)
    return points


def view_rays(state: State, tracks: Tracks) -> Float[np.ndarray, "m 3"]:
    """Directions of length one, in the world, in which observations were made."""
    lens = state.lenses.of_view[tracks.view]
    flat = unbent(bent_places(state, tracks), state.lenses.distortion[lens])
    local = np.concatenate([flat, np.ones((len(flat), 1))], 1)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    return np.einsum("mji,mj->mi", state.rotations[tracks.view], local)


def bent_places(state: State, tracks: Tracks) -> Float[np.ndarray, "m 2"]:
    """Where observations lie on the plane at depth 1, as the lens bends them."""
    lens = state.lenses.of_view[tracks.view]
    return (tracks.xy - state.lenses.center[tracks.view]) / state.lenses.focal[lens][:, None]


def unbent(bent: Float[np.ndarray, "m 2"], distortion: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m 2"]:
    """Points at depth 1 that a lens shows at `bent`, by Newton's steps on their distance from the axis.

    Lenses that bend inwards show nothing beyond a certain distance; what is said to lie there stays near it.
    """
    if not distortion.any():
        return bent
    seen = np.linalg.norm(bent, axis=1)
    inwards = np.maximum(-distortion, 1e-12)
    most = np.sqrt((1 - _LEAST_SLOPE) / (3 * inwards))
    far = np.minimum(seen, most)
    for _ in range(_UNBEND_STEPS):
        off = far * (1 + distortion * far**2) - seen
        far = np.minimum(far - off / (1 + 3 * distortion * far**2), most)
    return bent * (far / np.maximum(seen, 1e-12))[:, None]


def largest_angles(state: State, tracks: Tracks) -> Float[np.ndarray, "p"]:
    """Of every point the largest angle in degrees between the rays of its first view and of another.

    Args:
        state: With points.
        tracks: Of them.
    """
    rays = state.points[tracks.point] - state.centers[tracks.view]
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    cosine = (rays * rays[tracks.first[:-1]][tracks.point]).sum(1)
    least = np.minimum.reduceat(cosine, tracks.first[:-1]) if tracks.num_points else np.zeros(0)
    return np.degrees(np.arccos(np.clip(least, -1, 1)))


def _solve(tracks: Tracks, across: np.ndarray, centers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if not tracks.num_points:
        return np.zeros((0, 3))
    starts = tracks.first[:-1]
    matrix = np.add.reduceat(weight[:, None, None] * across, starts)
    side = np.add.reduceat(weight[:, None] * np.einsum("mij,mj->mi", across, centers), starts)
    size = np.trace(matrix, axis1=1, axis2=2)
    matrix = matrix + 1e-9 * size[:, None, None] * np.eye(3)
    return np.linalg.solve(matrix, side[..., None])[..., 0]
