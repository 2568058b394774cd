"""Which views are compared, and what they have in common."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool

from nas3r.adjustment.coarse import CoarseViews
from nas3r.adjustment.guided import Reach, match_guided
from nas3r.adjustment.keypoints import Keypoints
from nas3r.adjustment.tracks import PairMatches
from nas3r.adjustment.verified import agreeing, match_freely

_ALL_PAIRS = 12  # views up to which every one is compared with every other
_PARTNERS = 10  # of a view among more
_NEXT = 2  # neighbours in order, of those
_THREADS = 2
_LEAST_SHARE = 0.5  # of guided matches that must agree: wrong ones, near a line as they are, agree by chance


def chosen_pairs(coarse: CoarseViews) -> list[tuple[int, int]]:
    """Pairs i < j of views to compare: all of few views, else those that should see most of the same."""
    views = len(coarse.state.rotations)
    if views <= _ALL_PAIRS:
        return [(i, j) for i in range(views) for j in range(i + 1, views)]
    overlap = coarse.overlaps()
    overlap = np.minimum(overlap, overlap.T)
    apart = np.abs(np.arange(views)[:, None] - np.arange(views))
    overlap[apart <= _NEXT] += 1
    np.fill_diagonal(overlap, -1)
    best = np.argsort(-overlap, axis=1, kind="stable")[:, :_PARTNERS]
    return sorted({(min(i, j), max(i, j)) for i in range(views) for j in best[i].tolist()})


def verified_matches(
    keypoints: Sequence[Keypoints], pairs: Sequence[tuple[int, int]], longer_side: int
) -> list[PairMatches]:
    """Matches by looks alone, each pair's in agreement with a fundamental matrix."""

    def match(pair: tuple[int, int]) -> PairMatches:
        return PairMatches(pair, match_freely(keypoints[pair[0]], keypoints[pair[1]], longer_side))

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(match, pairs))


def with_guided(
    coarse: CoarseViews,
    keypoints: Sequence[Keypoints],
    matches: Sequence[PairMatches],
    poor: Bool[np.ndarray, "v"],
    reach: Reach,
) -> list[PairMatches]:
    """Matches, and beside them those near where the coarse cameras say, of pairs with a view that has few.

    Where looks alone suffice they are better: matches that a wrong camera guided agree with it.

    Args:
        coarse: Cameras and depth.
        keypoints: Of every view.
        matches: Verified ones, of every pair that is compared.
        poor: Which views have few.
        reach: How far coarse cameras are trusted.
    """
    out = []
    for one in matches:
        i, j = one.views
        if poor[i] or poor[j]:
            guided = match_guided(
                keypoints[i],
                keypoints[j],
                coarse.expected(i, j, keypoints[i].xy),
                coarse.expected(j, i, keypoints[j].xy).xy,
                reach,
            )
            places = keypoints[i].xy[guided[:, 0]], keypoints[j].xy[guided[:, 1]]
            agree = agreeing(*places, max(coarse.size))
            if agree.sum() > _LEAST_SHARE * len(agree):
                one = PairMatches(one.views, np.unique(np.concatenate([one.indices, guided[agree]]), axis=0))
        out.append(one)
    return out
