"""Which of many frames to reconstruct from: spread over the camera's motion, each one sharp."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nas3r.reconstruction.motion import Motion

# Neighbouring views may be this far apart (path length, see `Motion.path`) and still share most of
# what they see; a longer path than that between all views is cut.
_FARTHEST_APART = 0.2
# A frame says something new if the camera has moved so far since the one before.
_NEWS = 0.04
_FEW = 12  # views, at least, of candidates between which it hardly moves


@dataclass(frozen=True)
class Selection:
    """Chosen candidates.

    Attributes:
        views: Indices of the views to reconstruct from, ascending.
        held_out: Indices of views to test with, ascending, none of them in `views`.
        cut: Whether the path was too long for so few views, so that only a stretch of it is used.
    """

    views: list[int]
    held_out: list[int]
    cut: bool


def select(
    motions: Sequence[Motion], sharpness: Float[np.ndarray, "n"], count: int, num_held_out: int
) -> Selection:
    """Chooses views evenly along the path of the camera, preferring sharp ones, and held-out views between.

    Args:
        motions: From each candidate to the next, one less than candidates.
        sharpness: Of each candidate, any unit.
        count: Number of views, at least 2.
        num_held_out: Number of held-out views wanted; fewer if there are not enough candidates.
    """
    if len(motions) != len(sharpness) - 1 or count < 2:
        raise ValueError(
            f"select: expected at least 2 views and one motion less than candidates, got {count} views, "
            f"{len(motions)} motions and {len(sharpness)} candidates"
        )
    path = _path(motions)
    if len(path) <= count:
        return Selection(list(range(len(path))), [], False)
    length = _FARTHEST_APART * (count - 1)
    # Candidates that are far apart anyway (a photo collection) are not cut: nothing is gained.
    cut = path[-1] > length and np.median(np.diff(path)) < 0.5 * _FARTHEST_APART
    begin = _best_stretch(path, motions, sharpness, length) if cut else 0.0
    end = begin + length if cut else path[-1]
    views = _spread(path, sharpness, np.linspace(begin, end, count), taken=set())
    wanted = min(num_held_out, count - 1)
    gaps = np.linspace(0, count - 2, wanted).round().astype(int)  # which gaps get a held-out view
    middles = np.array([(path[views[i]] + path[views[i + 1]]) / 2 for i in gaps])
    held_out = _spread(path, sharpness, middles, taken=set(views))
    inside = [index for index in held_out if views[0] < index < views[-1]]
    return Selection(views, inside, bool(cut))


def select_all(
    motions: Sequence[Motion], sharpness: Float[np.ndarray, "n"], most: int, num_held_out: int
) -> Selection:
    """All candidates but those between which the camera hardly moved, and held-out views among the rest.

    Args:
        motions: From each candidate to the next, one less than candidates.
        sharpness: Of each candidate, any unit.
        most: Views, at most; at least 2.
        num_held_out: Number of held-out views wanted.
    """
    count = len(sharpness)
    path = _path(motions)
    wanted = min(most, max(_FEW, math.ceil(path[-1] / _NEWS) + 1), max(2, count - num_held_out))
    if wanted >= count:
        return Selection(list(range(count)), [], False)
    # The first and last candidates are worth more than others: nothing else shows what is beyond them.
    views = _spread(path, sharpness, np.linspace(0, path[-1], wanted), taken=set())
    rest = sorted(set(range(views[0] + 1, views[-1])) - set(views))
    wanted = min(num_held_out, len(rest))
    places = np.linspace(0, len(rest), wanted, endpoint=False) + len(rest) / (2 * max(wanted, 1))
    return Selection(views, [rest[int(place)] for place in places], False)


def _path(motions: Sequence[Motion]) -> Float[np.ndarray, "n"]:
    """How far the camera has come at every candidate."""
    path = np.concatenate([[0.0], np.cumsum([motion.path for motion in motions])])
    return path if path[-1] > 0 else np.linspace(0, 1e-9, len(path))  # no measurable motion: as good as any


def _best_stretch(
    path: Float[np.ndarray, "n"], motions: Sequence[Motion], sharpness: Float[np.ndarray, "n"], length: float
) -> float:
    """Where along the path the stretch begins whose frames are sharpest and match their neighbours best."""
    overlap = np.concatenate([[0.0], [motion.overlap for motion in motions]])
    worth = overlap + sharpness / max(sharpness.max(), 1e-9)
    begins = path[path <= path[-1] - length]
    if len(begins) == 0:
        return 0.0
    scores = [worth[(path >= begin) & (path <= begin + length)].mean() for begin in begins]
    return float(begins[int(np.argmax(scores))])


def _spread(
    path: Float[np.ndarray, "n"],
    sharpness: Float[np.ndarray, "n"],
    targets: Float[np.ndarray, "k"],
    taken: set[int],
) -> list[int]:
    """For each place the sharpest candidate nearby, no candidate twice; ascending."""
    spacing = float(np.diff(targets).mean()) if len(targets) > 1 else float(path[-1])
    relative = sharpness / max(float(np.median(sharpness)), 1e-9)
    chosen: set[int] = set()
    for target in targets:
        # A third of the spacing away costs as much as being a third less sharp than the median.
        distance = np.abs(path - target) / max(spacing, 1e-12)
        score = distance - np.minimum(relative, 1.5)
        score[list(taken | chosen)] = np.inf
        if np.isfinite(score).any():
            chosen.add(int(score.argmin()))
    return sorted(chosen)
