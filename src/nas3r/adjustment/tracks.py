"""`Tracks`: points of the scene and where views show them; joined from matches of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class PairMatches:
    """Keypoints of two views that show the same point.

    Attributes:
        views: The two.
        indices: Of the keypoints, in the first and in the second view [n, 2].
    """

    views: tuple[int, int]
    indices: Int[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Tracks:
    """Observations of points, sorted by point.

    Attributes:
        first: Of every point its first observation; last, the number of observations [p + 1].
        view: That makes the observation [m].
        xy: Where, in pixels of that view [m, 2]; the first pixel's centre is (0.5, 0.5).
        keypoint: Number of the keypoint in its view [m].
    """

    first: Int[np.ndarray, "p+1"]
    view: Int[np.ndarray, "m"]
    xy: Float[np.ndarray, "m 2"]
    keypoint: Int[np.ndarray, "m"]

    @property
    def num_points(self) -> int:
        """Number of points."""
        return len(self.first) - 1

    @property
    def point(self) -> Int[np.ndarray, "m"]:
        """Of every observation the point."""
        return np.repeat(np.arange(self.num_points), np.diff(self.first))

    def keep(self, observations: Bool[np.ndarray, "m"]) -> tuple["Tracks", Bool[np.ndarray, "p"]]:
        """Some observations, without the points of which fewer than two are left; and which points stay."""
        counts = np.bincount(self.point[observations], minlength=self.num_points)
        stays = counts >= 2
        kept = observations & stays[self.point]
        first = np.concatenate([[0], np.cumsum(counts[stays])])
        return Tracks(first, self.view[kept], self.xy[kept], self.keypoint[kept]), stays


def join_tracks(keypoints: Sequence[Float[np.ndarray, "n 2"]], pairs: Sequence[PairMatches]) -> Tracks:
    """Matches that share keypoints become tracks; of those that come twice into a view, none is believed.

    Args:
        keypoints: Of every view, in pixels.
        pairs: Matches between two views each.
    """
    offsets = np.concatenate([[0], np.cumsum([len(k) for k in keypoints])])
    edges = [
        np.stack([p.indices[:, 0] + offsets[p.views[0]], p.indices[:, 1] + offsets[p.views[1]]], 1)
        for p in pairs
    ]
    joined = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    root = _roots(joined.astype(np.int64), int(offsets[-1]))
    view = np.repeat(np.arange(len(keypoints)), np.diff(offsets))
    members = np.flatnonzero(np.bincount(root, minlength=len(root))[root] >= 2)
    members = members[np.lexsort((view[members], root[members]))]
    group, sizes = np.unique(root[members], return_counts=True)
    twice = np.zeros(len(members), bool)
    twice[1:] = (root[members][1:] == root[members][:-1]) & (view[members][1:] == view[members][:-1])
    number = np.repeat(np.arange(len(group)), sizes)
    good = np.bincount(number, weights=twice, minlength=len(group)) == 0
    members = members[good[number]]
    xy = np.concatenate(list(keypoints)) if keypoints else np.zeros((0, 2))
    first = np.concatenate([[0], np.cumsum(sizes[good])])
    return Tracks(first, view[members], xy[members].astype(np.float64), members - offsets[view[members]])


@numba.njit(cache=True)
def _roots(edges: Int[np.ndarray, "e 2"], count: int) -> Int[np.ndarray, "n"]:
    """The representative of every element's connected component (union-find with path halving)."""
    parent = np.arange(count)
    for e in range(len(edges)):
        a, b = edges[e, 0], edges[e, 1]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for i in range(count):
        a = i
        while parent[a] != a:
            a = parent[a]
        parent[i] = a
    return parent
