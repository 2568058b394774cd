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


class SiftMatcher:
    """SIFT features of some images, and matches between them.

    Args:
        images: In [0, 1].

    Raises:
        ModuleNotFoundError: If OpenCV is not installed.
    """

    def __init__(self, images: Float[Tensor, "v 3 h w"]) -> None:
        cv2 = import_cv2()
        sift = cv2.SIFT_create(contrastThreshold=_CONTRAST)
        self.height, self.width = images.shape[-2:]
        self._features: list[tuple[np.ndarray, Tensor]] = []
        for image in images:
            pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
            points, descriptors = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
            # OpenCV's pixel centres are at whole numbers, ours half a pixel further.
            xy = np.array([p.pt for p in points], dtype=np.float64).reshape(-1, 2) + 0.5
            self._features.append(
                (xy, torch.zeros(0, 128) if descriptors is None else torch.tensor(descriptors))
            )

    def matches(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions [n, 2] in both images of mutual nearest neighbours that pass the ratio test."""
        (xy_i, first), (xy_j, second) = self._features[i], self._features[j]
        if min(len(first), len(second)) < 2:
            return np.zeros((0, 2)), np.zeros((0, 2))
        distance = torch.cdist(first, second)
        nearest, index = distance.topk(2, largest=False)
        mutual = distance.argmin(0)[index[:, 0]] == torch.arange(len(first))
        kept = (mutual & (nearest[:, 0] < _RATIO * nearest[:, 1])).nonzero().flatten()
        return xy_i[kept.numpy()], xy_j[index[kept, 0].numpy()]


def essential_pose(
    matches: tuple[np.ndarray, np.ndarray],
    intrinsics: Float[Tensor, "2 3 3"],
    height: int,
    width: int,
) -> Float[Tensor, "4 4"]:
    """Pose of the second camera in the frame of the first: MAGSAC++ essential matrix, then cheirality.

    Args:
        matches: Pixel positions [n, 2] in both images.
        intrinsics: Normalised, of both images.
        height: Of the images.
        width: Of the images.

    Returns:
        The pose, with a translation of length 1; NaN if none was found.

    Raises:
        ModuleNotFoundError: If OpenCV is not installed.
    """
    cv2 = import_cv2()
    failed = torch.full((4, 4), torch.nan, dtype=torch.float64)
    if len(matches[0]) < _MIN_MATCHES:
        return failed
    pixel = (intrinsics.double() * torch.tensor([width, height, 1.0]).double()[:, None]).numpy()
    first, second = (_rays(xy, k) for xy, k in zip(matches, pixel, strict=True))
    essential, inliers = cv2.findEssentialMat(
        first,
        second,
        np.eye(3),
        method=cv2.USAC_MAGSAC,
        prob=_CONFIDENCE,
        threshold=_THRESHOLD / pixel[:, 0, 0].mean(),
        maxIters=_ITERATIONS,
    )
    if essential is None or essential.shape[0] % 3:
        return failed
    best, best_count = failed, 0
    for k in range(0, len(essential), 3):  # several solutions may be stacked
        count, rotation, translation, _ = cv2.recoverPose(
            essential[k : k + 3], first, second, np.eye(3), mask=inliers.copy()
        )
        if count > best_count:
            motion = make_pose(torch.tensor(rotation), torch.tensor(translation[:, 0]))
            best, best_count = invert_pose(motion), count
    return best


def _rays(xy: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    homogeneous = np.concatenate([xy, np.ones_like(xy[:, :1])], 1)
    return np.ascontiguousarray((homogeneous @ np.linalg.inv(intrinsics).T)[:, :2])
