"""Pairs of pictures whose rotations contradict those of others: things that look alike and are not the same.

Along a circle of pairs the rotations from picture to picture add up to none. All pictures are turned so that
they agree with as much as can be (Chatterjee and Govindu, "Efficient and Robust Large-Scale Rotation
Averaging", ICCV 2013); pairs that are far off then are wrong. Every point has one vote, which its pairs
share: two doors that look the same are many pairs, but few points. A pair in no circle contradicts nothing.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from nas3r.adjustment import Keypoints, Lenses, PairMatches, Tracks

_FAR = 20.0  # degrees
_SURE = 5.0  # degrees below which nearer does not count more
_ROUNDS = 30
_STEADY = 1e-4  # radians that pictures turn in a round, from which nothing more happens
_NEAR = 2.0  # pixels of an image whose longer side is 640, from a pair's epipolar lines
_CONFIDENCE = 0.999


def contradicting(
    pairs: Sequence[PairMatches], keypoints: Sequence[Keypoints], tracks: Tracks, lenses: Lenses, pixel: float
) -> Bool[np.ndarray, "k"]:
    """Which pairs contradict the others.

    Args:
        pairs: That agree on an epipolar geometry.
        keypoints: Of all pictures.
        tracks: Of these pairs.
        lenses: Of all pictures.
        pixel: Pixels of the images for one of an image whose longer side is 640.
    """
    if not pairs:
        return np.zeros(0, bool)
    views = np.array([pair.views for pair in pairs])
    rotations = np.stack([_rotation(pair, keypoints, lenses, _NEAR * pixel) for pair in pairs])
    votes = _votes(pairs, keypoints, tracks)
    return contradictions(len(keypoints), views, rotations, votes) > _FAR


def _votes(
    pairs: Sequence[PairMatches], keypoints: Sequence[Keypoints], tracks: Tracks
) -> Float[np.ndarray, "k"]:
    """One for every point, shared by all pairs of views that see it."""
    views = np.diff(tracks.first)[tracks.point]
    share = [np.zeros(len(k.xy)) for k in keypoints]
    for view, own in enumerate(share):
        mine = tracks.view == view
        own[tracks.keypoint[mine]] = 2 / (views[mine] * (views[mine] - 1))
    return np.array([share[pair.views[0]][pair.indices[:, 0]].sum() for pair in pairs])


def contradictions(
    count: int,
    views: Int[np.ndarray, "k 2"],
    rotations: Float[np.ndarray, "k 3 3"],
    weight: Float[np.ndarray, "k"],
) -> Float[np.ndarray, "k"]:
    """How far pairs are from the rotations that most of them agree on, in degrees.

    Args:
        count: Of the pictures.
        views: Pairs (i, j).
        rotations: From the frame of the first picture to that of the second, of every pair.
        weight: How much pairs count.
    """
    turned = _along_the_strongest(count, views, rotations, weight)
    first, second = views.T
    for _ in range(_ROUNDS):
        off = _logarithm(turned[second].transpose(0, 2, 1) @ rotations @ turned[first])
        trust = weight / np.maximum(np.linalg.norm(off, axis=1), np.radians(_SURE))
        # Turning picture i by d_i leaves off_ij + d_i - d_j: a least squares problem on the graph.
        laplacian = np.zeros((count, count))
        np.add.at(laplacian, (first, second), -trust)
        laplacian += laplacian.T
        laplacian -= np.diag(laplacian.sum(1))
        side = np.zeros((count, 3))
        np.add.at(side, first, -trust[:, None] * off)
        np.add.at(side, second, trust[:, None] * off)
        step = np.linalg.lstsq(laplacian, side, rcond=1e-9)[0]
        turned = turned @ _exponential(step)
        if np.abs(step).max() < _STEADY:
            break
    off = _logarithm(turned[second].transpose(0, 2, 1) @ rotations @ turned[first])
    return np.degrees(np.linalg.norm(off, axis=1))


def _along_the_strongest(
    count: int,
    views: Int[np.ndarray, "k 2"],
    rotations: Float[np.ndarray, "k 3 3"],
    weight: Float[np.ndarray, "k"],
) -> Float[np.ndarray, "v 3 3"]:
    """Rotations along a tree of the strongest pairs, from the picture with the lowest number of each part."""
    turned = np.tile(np.eye(3), (count, 1, 1))
    known = np.zeros(count, bool)
    for start in range(count):
        if known[start]:
            continue
        known[start] = True
        while True:
            ahead = known[views[:, 0]] & ~known[views[:, 1]]
            back = known[views[:, 1]] & ~known[views[:, 0]]
            if not (ahead | back).any():
                break
            pair = int(np.where(ahead | back, weight, -1.0).argmax())
            i, j = views[pair]
            if ahead[pair]:
                turned[j] = rotations[pair] @ turned[i]
            else:
                turned[i] = rotations[pair].T @ turned[j]
            known[views[pair]] = True
    return turned


def _rotation(
    pair: PairMatches, keypoints: Sequence[Keypoints], lenses: Lenses, near: float
) -> Float[np.ndarray, "3 3"]:
    """From the frame of the first picture to that of the second."""
    focal = lenses.focal[lenses.of_view[list(pair.views)]]
    first, second = (
        (keypoints[view].xy[pair.indices[:, i]] - lenses.center[view]) / focal[i]
        for i, view in enumerate(pair.views)
    )
    cv2.setRNGSeed(0)
    essential, agree = cv2.findEssentialMat(
        first, second, np.eye(3), cv2.RANSAC, _CONFIDENCE, near / float(np.sqrt(focal.prod()))
    )
    if essential is None or essential.shape != (3, 3):
        return np.eye(3)
    return np.asarray(cv2.recoverPose(essential, first, second, np.eye(3), mask=agree)[1])


def _logarithm(rotations: Float[np.ndarray, "k 3 3"]) -> Float[np.ndarray, "k 3"]:
    return np.stack([cv2.Rodrigues(rotation)[0][:, 0] for rotation in rotations])


def _exponential(vectors: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3 3"]:
    return np.stack([np.asarray(cv2.Rodrigues(vector)[0]) for vector in vectors])
