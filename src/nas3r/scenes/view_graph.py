"""`ViewGraph`: which pictures see the same, and which of those from different places."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int

from nas3r.adjustment import Keypoints, PairMatches, match_freely

_THREADS = 2
_FLAT = 3.0  # pixels of an image whose longer side is 640, from where a homography has a match
_ITERATIONS, _CONFIDENCE = 500, 0.99
_MORE = 4  # pairs of a picture that are tried since its partners have a partner in common


@dataclass(frozen=True)
class ViewGraph:
    """Pictures, and the pairs of them whose matches agree.

    Attributes:
        views: How many pictures there are.
        pairs: Matches of the pairs that agree on an epipolar geometry.
        parallax: Of every pair, the share of its matches that no homography explains: none for a camera that
            only turned.
    """

    views: int
    pairs: list[PairMatches]
    parallax: Float[np.ndarray, "k"]

    @property
    def strength(self) -> Float[np.ndarray, "v v"]:
        """Number of matches of every pair, symmetric."""
        matrix = np.zeros((self.views, self.views))
        for pair in self.pairs:
            matrix[pair.views] = matrix[pair.views[::-1]] = len(pair.indices)
        return matrix

    @property
    def apart(self) -> Float[np.ndarray, "v v"]:
        """Number of matches of every pair that no homography explains, symmetric."""
        matrix = np.zeros((self.views, self.views))
        for pair, share in zip(self.pairs, self.parallax, strict=True):
            matrix[pair.views] = matrix[pair.views[::-1]] = len(pair.indices) * share
        return matrix

    def components(self) -> list[Int[np.ndarray, "k"]]:
        """Pictures that pairs join, as ascending indices; the largest first."""
        label = np.arange(self.views)
        for pair in self.pairs:
            a, b = (label[view] for view in pair.views)
            label[label == max(a, b)] = min(a, b)
        groups = [np.flatnonzero(label == name) for name in np.unique(label)]
        return sorted(groups, key=lambda group: -len(group))


def build_graph(
    keypoints: Sequence[Keypoints],
    candidates: Sequence[tuple[int, int]],
    longer_side: int,
    on_compared: Callable[[int, int], None] = lambda done, total: None,
) -> ViewGraph:
    """Compares the candidates, and then those that a common partner suggests.

    Args:
        keypoints: Of the pictures.
        candidates: Pairs i < j.
        longer_side: Of the images, in pixels.
        on_compared: Called with how many pairs are done and how many there are.
    """
    found = _compared(keypoints, candidates, longer_side, on_compared)
    graph = ViewGraph(len(keypoints), [pair for pair, _ in found], np.array([share for _, share in found]))
    more = sorted(set(_suggested(graph)) - set(candidates))
    found += _compared(keypoints, more, longer_side, on_compared)
    return ViewGraph(len(keypoints), [pair for pair, _ in found], np.array([share for _, share in found]))


def _compared(
    keypoints: Sequence[Keypoints],
    candidates: Sequence[tuple[int, int]],
    longer_side: int,
    on_compared: Callable[[int, int], None],
) -> list[tuple[PairMatches, float]]:
    def compare(pair: tuple[int, int]) -> tuple[PairMatches, float]:
        first, second = (keypoints[view] for view in pair)
        indices = match_freely(first, second, longer_side)
        places = first.xy[indices[:, 0]], second.xy[indices[:, 1]]
        return PairMatches(pair, indices), _parallax(*places, longer_side)

    found = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, one in enumerate(pool.map(compare, candidates), 1):
            on_compared(done, len(candidates))
            if len(one[0].indices):
                found.append(one)
    return found


def _suggested(graph: ViewGraph) -> list[tuple[int, int]]:
    """Pairs that were not compared, or do not agree, though both match some third picture well."""
    strength = np.sqrt(graph.strength)
    through = strength @ strength
    through[strength > 0] = 0
    np.fill_diagonal(through, 0)
    best = np.argsort(-through, axis=1, kind="stable")[:, :_MORE]
    return [(min(i, j), max(i, j)) for i in range(graph.views) for j in best[i].tolist() if through[i, j] > 0]


def _parallax(first: Float[np.ndarray, "k 2"], second: Float[np.ndarray, "k 2"], longer_side: int) -> float:
    """The share of matches that are not where the best homography has them."""
    if len(first) < 8:
        return 0.0
    cv2.setRNGSeed(0)
    far = _FLAT * longer_side / 640
    _, agree = cv2.findHomography(first, second, cv2.RANSAC, far, None, _ITERATIONS, _CONFIDENCE)
    return 1.0 if agree is None else 1 - float(agree.mean())
