"""Points that can be found again in other photos, with what they look like (SIFT, by OpenCV).

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004, with the descriptors of
Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012
(RootSIFT).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_CONTRAST = 0.01  # OpenCV's default of 0.04 leaves plain walls empty
_MOST = 4000


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of a view.

    Attributes:
        xy: In pixels; the first pixel's centre is (0.5, 0.5) [n, 2].
        descriptors: Of length one [n, 128].
        size: Diameter of what is described, in pixels [n].
    """

    xy: Float[np.ndarray, "n 2"]
    descriptors: Float[np.ndarray, "n 128"]
    size: Float[np.ndarray, "n"]


def find_keypoints(image: UInt8[np.ndarray, "h w 3"], most: int = _MOST) -> Keypoints:
    """Keypoints of a photo, the most distinct ones if there are more than asked for."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found, descriptors = cv2.SIFT.create(most, contrastThreshold=_CONTRAST).detectAndCompute(grey, None)
    if descriptors is None:
        return Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32), np.zeros(0))
    xy = np.array([k.pt for k in found], np.float64) + 0.5  # OpenCV's first pixel has its centre at (0, 0)
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    size = np.array([k.size for k in found])
    return Keypoints(xy, root.astype(np.float32), size)
