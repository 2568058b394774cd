"""Matches that need no cameras: found by looks alone, and verified by a fundamental matrix."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from nas3r.adjustment.keypoints import Keypoints

_RATIO = 0.85
_FAR = 1.5  # pixels from the epipolar line for each thousand pixels of the image's longer side
_LEAST = 15  # matches that agree: seven agree by construction
_ITERATIONS, _CONFIDENCE = 5000, 0.999


def match_freely(first: Keypoints, second: Keypoints, longer_side: int) -> Int[np.ndarray, "k 2"]:
    """Keypoints that are each other's best by far and agree on a fundamental matrix; none if few do.

    Args:
        first: Keypoints of one view.
        second: Of the other.
        longer_side: Of the images, in pixels.

    Returns:
        Indices of keypoints in both views.
    """
    if min(len(first.xy), len(second.xy)) < _LEAST:
        return np.zeros((0, 2), np.int64)
    alike = first.descriptors @ second.descriptors.T
    rows = np.arange(len(alike))
    best = alike.argmax(1)
    top = alike[rows, best]
    alike[rows, best] = -1
    chosen = np.flatnonzero((1 - top) < _RATIO**2 * (1 - alike.max(1)))
    back = (second.descriptors[best[chosen]] @ first.descriptors.T).argmax(1)
    chosen = chosen[back == chosen]
    matches = np.stack([chosen, best[chosen]], 1)
    return matches[agreeing(first.xy[chosen], second.xy[best[chosen]], longer_side)]


def agreeing(
    first: Float[np.ndarray, "k 2"], second: Float[np.ndarray, "k 2"], longer_side: int
) -> Bool[np.ndarray, "k"]:
    """Which matched places agree on a fundamental matrix (MAGSAC); none if few do.

    Args:
        first: In one view, in pixels.
        second: In the other.
        longer_side: Of the images, in pixels.
    """
    none = np.zeros(len(first), bool)
    if len(first) < _LEAST:
        return none
    cv2.setRNGSeed(0)
    far = _FAR * longer_side / 1000
    try:
        _, agree = cv2.findFundamentalMat(first, second, cv2.USAC_MAGSAC, far, _CONFIDENCE, _ITERATIONS)
    except cv2.error:  # where no sample gives a model: places on a line, or all the same
        return none
    if agree is None or agree.sum() < _LEAST:
        return none
    return agree.ravel() > 0
