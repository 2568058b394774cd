"""Matches between keypoints of two views, near where coarse cameras and depth say that they are."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int

from nas3r.adjustment.keypoints import Keypoints


@dataclass(frozen=True)
class Reach:
    """How far cameras and depth are trusted when matches are looked for.

    Attributes:
        place: Largest distance in pixels from where depth says that a point is.
        line: Largest distance in pixels from its epipolar line.
        ratio: Largest distance of descriptors, as a share of that of the next best.
    """

    place: float
    line: float
    ratio: float


@dataclass(frozen=True)
class Expected:
    """Where keypoints of one view are expected in another.

    Attributes:
        xy: In pixels of the other view [n, 2]; NaN where they are expected not at all.
        lines: Epipolar lines there, with normals of length one [n, 3].
    """

    xy: Float[np.ndarray, "n 2"]
    lines: Float[np.ndarray, "n 3"]


def match_guided(
    first: Keypoints,
    second: Keypoints,
    expected: Expected,
    expected_back: Float[np.ndarray, "m 2"],
    reach: Reach,
) -> Int[np.ndarray, "k 2"]:
    """Pairs of keypoints that are each other's best, by far, of those within reach.

    A pair is within reach if depth of either view says so, and the epipolar line.

    Args:
        first: Keypoints of one view.
        second: Of the other.
        expected: Where the first ones are expected in the second view.
        expected_back: Where the second ones are expected in the first view, in pixels.
        reach: How far they may be from there.

    Returns:
        Indices of keypoints in both views.
    """
    best, top, next_best, best_back = _best_within_reach(
        first.xy,
        second.xy,
        first.descriptors,
        second.descriptors,
        expected.xy,
        expected.lines,
        expected_back,
        reach.place,
        reach.line,
    )
    # Distances of vectors of length one: |a - b|^2 = 2 - 2 a.b
    distinct = (1 - top) < reach.ratio**2 * (1 - next_best)
    mine = np.arange(len(best))
    good = (best >= 0) & distinct
    good[good] = best_back[best[good]] == mine[good]
    return np.stack([mine[good], best[good]], 1)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _best_within_reach(
    xy: Float[np.ndarray, "n 2"],
    other_xy: Float[np.ndarray, "m 2"],
    descriptors: Float[np.ndarray, "n c"],
    other_descriptors: Float[np.ndarray, "m c"],
    expected: Float[np.ndarray, "n 2"],
    lines: Float[np.ndarray, "n 3"],
    expected_back: Float[np.ndarray, "m 2"],
    place: float,
    line: float,
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"], Float[np.ndarray, "n"], Int[np.ndarray, "m"]]:
    """Of every keypoint the one most alike or -1, how alike it and the next are, and the best one back."""
    count, others = len(xy), len(other_xy)
    best = np.full(count, -1)
    top, second = np.full(count, -1.0), np.full(count, -1.0)
    best_back, top_back = np.full(others, -1), np.full(others, -1.0)
    for i in range(count):
        for j in range(others):
            x, y = other_xy[j, 0], other_xy[j, 1]
            if abs(lines[i, 0] * x + lines[i, 1] * y + lines[i, 2]) > line:
                continue
            near = (x - expected[i, 0]) ** 2 + (y - expected[i, 1]) ** 2 < place**2
            near |= (xy[i, 0] - expected_back[j, 0]) ** 2 + (xy[i, 1] - expected_back[j, 1]) ** 2 < place**2
            if not near:
                continue
            alike = np.float32(0.0)
            for c in range(descriptors.shape[1]):
                alike += descriptors[i, c] * other_descriptors[j, c]
            if alike > top[i]:
                second[i], top[i], best[i] = top[i], alike, j
            elif alike > second[i]:
                second[i] = alike
            if alike > top_back[j]:
                top_back[j], best_back[j] = alike, i
    return best, top, second, best_back
