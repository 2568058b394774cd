"""`Landmarks`: points of a scene with what they look like, in which further photos are found."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from nas3r.adjustment.keypoints import Keypoints, find_keypoints

_RATIO = 0.85
_LEAST = 12  # points that agree
_FAR = 6.0  # pixels of an image whose longer side is 640
_ITERATIONS, _CONFIDENCE = 5000, 0.9999
_AT_ONCE = 8192  # looks that keypoints are compared with at a time


@dataclass(frozen=True)
class Landmarks:
    """Points, each with its looks in the views that saw it.

    Attributes:
        points: In the world [p, 3].
        of_point: Which point each look is of [m].
        descriptors: Looks, of length 255 [m, 128].
    """

    points: Float[np.ndarray, "p 3"]
    of_point: Int[np.ndarray, "m"]
    descriptors: UInt8[np.ndarray, "m 128"]

    def locate(
        self, image: UInt8[np.ndarray, "h w 3"], matrix: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "4 4"] | None:
        """World from camera of a photo; None if too few points are found in it (PnP with RANSAC).

        Args:
            image: The photo.
            matrix: Its intrinsics, in pixels.
        """
        keypoints = find_keypoints(image)
        mine, seen = self._matched(keypoints)
        if len(mine) < _LEAST:
            return None
        near = _FAR * max(image.shape[:2]) / 640
        points, xy = self.points[seen], keypoints.xy[mine]
        cv2.setRNGSeed(0)
        found, turn, shift, agree = cv2.solvePnPRansac(
            points,
            xy,
            matrix,
            None,
            iterationsCount=_ITERATIONS,
            reprojectionError=near,
            confidence=_CONFIDENCE,
            flags=cv2.SOLVEPNP_SQPNP,
        )
        if not found or agree is None or len(agree) < _LEAST:
            return None
        agree = np.asarray(agree)[:, 0].astype(int)
        turn, shift = cv2.solvePnPRefineLM(points[agree], xy[agree], matrix, None, turn, shift)
        pose = np.eye(4)
        rotation = np.asarray(cv2.Rodrigues(turn)[0])
        pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ shift[:, 0]
        return pose

    def _matched(self, keypoints: Keypoints) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
        """Keypoints, and the points that look like them and unlike all others."""
        if not len(self.descriptors) or not len(keypoints.xy):
            return np.zeros(0, int), np.zeros(0, int)
        looks = self.descriptors.astype(np.float32).T / 255
        rows = np.arange(len(keypoints.xy))
        best, top, rest = np.zeros(len(rows), int), *np.full((2, len(rows)), -1.0)
        for start in range(0, len(self.of_point), _AT_ONCE):  # bounds the memory
            of_point = self.of_point[start : start + _AT_ONCE]
            alike = keypoints.descriptors @ looks[:, start : start + _AT_ONCE]
            here = alike.argmax(1)
            value, point = alike[rows, here], of_point[here]
            alike[of_point[None] == point[:, None]] = -1
            second = alike.max(1)
            # The best look of any point but the best one, of what was seen so far.
            among_others = np.maximum(np.where(value > top, second, rest), np.minimum(value, top))
            rest = np.where(point == best, np.maximum(rest, second), among_others)
            best, top = np.where(value > top, point, best), np.maximum(value, top)
        distinct = (1 - top) < _RATIO**2 * (1 - rest)
        return np.flatnonzero(distinct), best[distinct]
