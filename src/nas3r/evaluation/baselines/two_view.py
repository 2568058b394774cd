"""Relative pose of two images by SIFT matches and an essential matrix (OpenCV)."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import invert_pose, make_pose

# COLMAP's first guess at an unknown focal length: this many times the longer image side.
GUESSED_FOCAL = 1.2

# Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004, sec. 7.1, has 0.8. In small
# images a little more fails less often.
_RATIO = 0.85
_CONFIDENCE = 0.9999
_ITERATIONS = 10_000
_THRESHOLD = 1.0  # pixels
_CONTRAST = 0.01  # OpenCV's default, 0.04, leaves almost no features in images of 64 px
_MIN_MATCHES = 8


def import_cv2() -> Any:
    """OpenCV, or a sentence that says how to get it."""
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('this baseline needs OpenCV: pip install "nas3r[baselines]"') from error
    return cv2


def guessed_intrinsics(count: int, height: int, width: int) -> Float[Tensor, "v 3 3"]:
    """Normalised intrinsics with COLMAP's guess of the focal length and a centred principal point."""
    focal = GUESSED_FOCAL * max(height, width)
    k = torch.tensor([[focal / width, 0, 0.5], [0, focal / height, 0.5], [0, 0, 1]])
    return k.expand(count, 3, 3)


class SiftEssential:
    """Relative poses of image pairs: SIFT, ratio test, MAGSAC++ essential matrix, cheirality.

    Features of an image are found once however many pairs it is in.

    Args:
        images: In [0, 1].
        intrinsics: Normalised, of each image.

    Raises:
        ModuleNotFoundError: If OpenCV is not installed.
    """

    def __init__(self, images: Float[Tensor, "v 3 h w"], intrinsics: Float[Tensor, "v 3 3"]) -> None:
        self._cv2 = import_cv2()
        height, width = images.shape[-2:]
        scale = torch.tensor([width, height, 1.0], dtype=torch.float64)[:, None]
        self._intrinsics = (intrinsics.double() * scale).numpy()
        sift = self._cv2.SIFT_create(contrastThreshold=_CONTRAST)
        self._features = []
        for image in images:
            pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            grey = self._cv2.cvtColor(pixels, self._cv2.COLOR_RGB2GRAY)
            points, descriptors = sift.detectAndCompute(grey, None)
            # OpenCV's pixel centres are at whole numbers, ours half a pixel further.
            xy = np.array([p.pt for p in points], dtype=np.float64).reshape(-1, 2) + 0.5
            self._features.append((xy, descriptors))

    def relative_pose(self, i: int, j: int) -> Float[Tensor, "4 4"]:
        """Pose of camera j in the frame of camera i, translation of length 1; NaN if none was found."""
        failed = torch.full((4, 4), torch.nan, dtype=torch.float64)
        a, b = self._matches(i, j)
        if len(a) < _MIN_MATCHES:
            return failed
        rays_a, rays_b = self._rays(a, i), self._rays(b, j)
        focal = (self._intrinsics[i][0, 0] + self._intrinsics[j][0, 0]) / 2
        essential, inliers = self._cv2.findEssentialMat(
            rays_a,
            rays_b,
            np.eye(3),
            method=self._cv2.USAC_MAGSAC,
            prob=_CONFIDENCE,
            threshold=_THRESHOLD / focal,
            maxIters=_ITERATIONS,
        )
        if essential is None or essential.shape[0] % 3:
            return failed
        best, best_count = failed, 0
        for k in range(0, len(essential), 3):
            count, rotation, translation, _ = self._cv2.recoverPose(
                essential[k : k + 3], rays_a, rays_b, np.eye(3), mask=inliers.copy()
            )
            if count > best_count:
                motion = make_pose(torch.tensor(rotation), torch.tensor(translation[:, 0]))
                best, best_count = invert_pose(motion), count
        return best

    def _matches(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions of mutual nearest neighbours that pass the ratio test."""
        (xy_i, first), (xy_j, second) = self._features[i], self._features[j]
        if first is None or second is None or min(len(first), len(second)) < 2:
            return np.zeros((0, 2)), np.zeros((0, 2))
        matcher = self._cv2.BFMatcher(self._cv2.NORM_L2)
        back = {m.queryIdx: m.trainIdx for m in matcher.match(second, first)}
        kept = [
            (m.queryIdx, m.trainIdx)
            for m, n in matcher.knnMatch(first, second, k=2)
            if m.distance < _RATIO * n.distance and back[m.trainIdx] == m.queryIdx
        ]
        index = np.array(kept, dtype=int).reshape(-1, 2)
        return xy_i[index[:, 0]], xy_j[index[:, 1]]

    def _rays(self, xy: np.ndarray, view: int) -> np.ndarray:
        homogeneous = np.concatenate([xy, np.ones_like(xy[:, :1])], 1)
        return (homogeneous @ np.linalg.inv(self._intrinsics[view]).T)[:, :2]
