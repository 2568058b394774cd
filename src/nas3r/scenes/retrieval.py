"""Which pictures may show the same: by what is in them, and by their order.

Jégou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010 (VLAD); the words
are those of the scene itself.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from nas3r.adjustment import Keypoints

_WORDS = 64
_SAMPLE = 30_000  # descriptors that words are found from
_ALIKE = 12  # partners of a picture by its looks
_NEXT = (1, 2, 4)  # partners by order: so many pictures further on


def describe(keypoints: Sequence[Keypoints]) -> Float[np.ndarray, "v d"]:
    """A descriptor of length one of every picture; zero for a picture without keypoints.

    Args:
        keypoints: Of the pictures.
    """
    everything = np.concatenate([k.descriptors for k in keypoints])
    words = min(_WORDS, len(everything))
    if not words:
        return np.zeros((len(keypoints), 1), np.float32)
    sample = everything[:: max(1, len(everything) // _SAMPLE)]
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 10, 0.0)
    cv2.setRNGSeed(0)
    centers = cv2.kmeans(sample, words, np.empty(0, np.int32), criteria, 1, cv2.KMEANS_PP_CENTERS)[2]
    return np.stack([_aggregated(k.descriptors, centers) for k in keypoints])


def _aggregated(descriptors: Float[np.ndarray, "n c"], centers: Float[np.ndarray, "k c"]) -> np.ndarray:
    """Sums of the differences from the nearest word, each of length one, as one vector of length one."""
    if not len(descriptors):
        return np.zeros(centers.size, np.float32)
    nearest = (descriptors @ centers.T - np.square(centers).sum(1) / 2).argmax(1)
    sums = np.zeros_like(centers)
    np.add.at(sums, nearest, descriptors - centers[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return (sums / np.maximum(np.linalg.norm(sums), 1e-9)).ravel()


def candidate_pairs(descriptors: Float[np.ndarray, "v d"], alike: int = _ALIKE) -> list[tuple[int, int]]:
    """Pairs i < j of pictures that are worth comparing: so many for every picture.

    Args:
        descriptors: Of the pictures, in the order they were taken or named.
        alike: Partners of a picture by its looks.
    """
    count = len(descriptors)
    similarity = descriptors @ descriptors.T
    np.fill_diagonal(similarity, -np.inf)
    best = np.argsort(-similarity, axis=1, kind="stable")[:, : min(alike, count - 1)]
    pairs = {(min(i, j), max(i, j)) for i in range(count) for j in best[i].tolist()}
    pairs |= {(i, i + step) for step in _NEXT for i in range(count - step)}
    return sorted(pairs)
