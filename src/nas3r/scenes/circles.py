"""Pairs of pictures whose rotations contradict those of others: things that look alike and are not the same.

Along a circle of pairs the rotations from picture to picture add up to none. All pictures are turned so that
they agree with as much as can be (Chatterjee and Govindu, "Efficient and Robust Large-Scale Rotation
Averaging", ICCV 2013); pairs that are far off then are wrong. Every point has one vote, which its pairs
share: two doors that look the same are many pairs, but few points. A pair in no circle contradicts nothing.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from nas3r.adjustment import Keypoints, Lenses, PairMatches, Tracks
from nas3r.geometry import so3_exp, so3_log

# Degrees; a focal length that is a tenth off leaves a gap of so much in a circle of all directions.
_FAR = 40.0
_SURE = 5.0  # degrees below which nearer does not count more
_ROUNDS = 30
_STEADY = 1e-4  # radians that pictures turn in a round, from which nothing more happens
_NEAR = 2.0  # pixels of an image whose longer side is 640, from a pair's epipolar lines
_CONFIDENCE = 0.999
_PLANE = 0.5  # share of the matches that a homography explains, from which rotations are ambiguous


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
    found = [_rotations(pair, keypoints, lenses, _NEAR * pixel) for pair in pairs]
    most = max(map(len, found))
    rotations = np.stack([np.stack(few + few[:1] * (most - len(few))) for few in found])
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
    rotations: Float[np.ndarray, "k m 3 3"],
    weight: Float[np.ndarray, "k"],
) -> Float[np.ndarray, "k"]:
    """How far pairs are from the rotations that most of them agree on, in degrees.

    Args:
        count: Of the pictures.
        views: Pairs (i, j).
        rotations: From the frame of the first picture to that of the second, of every pair; of a plane there
            are several that are as good, and the one counts that agrees with other pairs.
        weight: How much pairs count.
    """
    turned = _along_the_strongest(count, views, rotations[:, 0], weight)
    first, second = views.T
    for _ in range(_ROUNDS):
        off = _least_off(turned, views, rotations)
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
        turned = turned @ so3_exp(torch.from_numpy(step)).numpy()
        if np.abs(step).max() < _STEADY:
            break
    return np.degrees(np.linalg.norm(_least_off(turned, views, rotations), axis=1))


def _least_off(
    turned: Float[np.ndarray, "v 3 3"], views: Int[np.ndarray, "k 2"], rotations: Float[np.ndarray, "k m 3 3"]
) -> Float[np.ndarray, "k 3"]:
    """Of every pair the rotation that is left over, the smallest of those it may have, as a vector."""
    first, second = views.T
    left = turned[second, None].transpose(0, 1, 3, 2) @ rotations @ turned[first, None]
    vectors = so3_log(torch.from_numpy(left)).numpy()
    best = np.linalg.norm(vectors, axis=2).argmin(1)
    return vectors[np.arange(len(vectors)), best]


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


def _rotations(
    pair: PairMatches, keypoints: Sequence[Keypoints], lenses: Lenses, near: float
) -> list[Float[np.ndarray, "3 3"]]:
    """From the frame of the first picture to that of the second; several where most of it is a plane."""
    focal = lenses.focal[lenses.of_view[list(pair.views)]]
    first, second = (
        (keypoints[view].xy[pair.indices[:, i]] - lenses.center[view]) / focal[i]
        for i, view in enumerate(pair.views)
    )
    near /= float(np.sqrt(focal.prod()))
    found = []
    cv2.setRNGSeed(0)
    essential, agree = cv2.findEssentialMat(first, second, np.eye(3), cv2.RANSAC, _CONFIDENCE, near)
    if essential is not None and essential.shape == (3, 3):
        found.append(np.asarray(cv2.recoverPose(essential, first, second, np.eye(3), mask=agree)[1]))
    plane, agree = cv2.findHomography(first, second, cv2.RANSAC, near)
    if plane is not None and (agree.mean() > _PLANE or not found):
        found += [np.asarray(turn) for turn in cv2.decomposeHomographyMat(plane, np.eye(3))[1]]
    return found or [np.eye(3)]
