"""Cameras without a start: two views first, then one after the other (incremental structure from motion).

Schönberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016, in its simplest form.
"""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float

from nas3r.adjustment.bundle import Lenses, Options, Prior, State, adjust, residuals
from nas3r.adjustment.relocation import sighting
from nas3r.adjustment.tracks import Tracks
from nas3r.adjustment.triangulation import triangulate

_CONFIDENCE = 0.9999
_SCALES = (4.0, 1.0)  # of the robust loss, in units of what counts as near


def place_incrementally(
    lenses: Lenses, tracks: Tracks, first: tuple[int, int], prior: Prior, far: float
) -> tuple[State, Bool[np.ndarray, "v"]] | None:
    """Cameras, and which of them could be placed; None if not even the first two can.

    Args:
        lenses: Of the views, the focal length about right.
        tracks: What was seen.
        first: The two views to begin with. The first one's frame is the world, their distance the unit.
        prior: Of the lenses.
        far: Distance in pixels up to which an observation agrees.
    """
    views = len(lenses.of_view)
    pose = _two_views(lenses, tracks, first, far)
    if pose is None:
        return None
    rotations, translations = np.tile(np.eye(3), (views, 1, 1)), np.zeros((views, 3))
    rotations[first[1]], translations[first[1]] = pose
    state = State(rotations, translations, lenses, np.zeros((0, 3)))
    placed = np.zeros(views, bool)
    placed[list(first)] = True
    while not placed.all():
        seen = [sighting(state, tracks, view, placed, far) for view in np.flatnonzero(~placed).tolist()]
        for each in sorted(seen, key=lambda s: -len(s.points)):
            found = each.resected(state, far)
            if found is not None:
                placed[each.view] = True
                state = _adjusted(found, tracks, placed, prior, far)
                break
        else:
            break
    return state, placed


def _adjusted(state: State, tracks: Tracks, placed: np.ndarray, prior: Prior, far: float) -> State:
    known, _ = tracks.keep(placed[tracks.view])
    state = replace(state, points=triangulate(state, known))
    for scale in _SCALES:
        off = residuals(state, known)
        known, stays = known.keep(off < 4 * scale * far)
        state = replace(state, points=state.points[stays])
        state = adjust(state, known, prior, Options(scale=scale * far / 4, steps=10))
    return state


def _two_views(
    lenses: Lenses, tracks: Tracks, first: tuple[int, int], far: float
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]] | None:
    """Second camera from the first, by an essential matrix (MAGSAC)."""
    flat = []
    point = tracks.point
    seen = [np.flatnonzero(tracks.view == view) for view in first]
    _, mine, others = np.intersect1d(point[seen[0]], point[seen[1]], return_indices=True)
    for view, own in zip(first, (seen[0][mine], seen[1][others]), strict=True):
        flat.append((tracks.xy[own] - lenses.center[view]) / lenses.focal[lenses.of_view[view]])
    if len(mine) < 8:
        return None
    focal = float(lenses.focal[lenses.of_view[first[0]]])
    cv2.setRNGSeed(0)
    try:
        essential, agree = cv2.findEssentialMat(
            flat[0], flat[1], np.eye(3), cv2.USAC_MAGSAC, _CONFIDENCE, far / 4 / focal
        )
    except cv2.error:  # where no sample gives a model
        return None
    if essential is None or essential.shape != (3, 3):
        return None
    count, rotation, translation, _ = cv2.recoverPose(essential, flat[0], flat[1], np.eye(3), mask=agree)
    return (rotation, translation[:, 0]) if count >= 8 else None
