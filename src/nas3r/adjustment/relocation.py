"""Where views are, from points that others have placed (perspective-n-point), one view at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from nas3r.adjustment.bundle import State, residuals
from nas3r.adjustment.tracks import Tracks
from nas3r.adjustment.triangulation import largest_angles, triangulate, unbent

LEAST_POINTS = 15  # that must agree on where a view is
_CLEARLY = 1.3  # times as many points must agree with another place before a view is moved there
_ITERATIONS, _CONFIDENCE = 2000, 0.9999
_LEAST_ANGLE = 1.0  # degrees between rays, of points that count as placed


@dataclass(frozen=True)
class Sighting:
    """Points that some views have placed, as one more view sees them.

    Attributes:
        view: The one that looks.
        points: In the world [n, 3].
        xy: Where it sees them, in pixels [n, 2].
    """

    view: int
    points: Float[np.ndarray, "n 3"]
    xy: Float[np.ndarray, "n 2"]

    def agreeing(self, state: State, far: float) -> int:
        """How many points are seen within so many pixels of where the state's camera projects them."""
        rotation, translation = state.rotations[self.view], state.translations[self.view]
        local = self.points @ rotation.T + translation
        xy = state.lenses.project(local, np.full(len(local), self.view))
        return int(((local[:, 2] > 0) & (np.linalg.norm(xy - self.xy, axis=1) < far)).sum())

    def resected(self, state: State, far: float, least: int = LEAST_POINTS) -> State | None:
        """The state with this view where most points say that it is (RANSAC); None without such a place.

        Args:
            state: The others.
            far: Distance in pixels up to which an observation agrees.
            least: Points that must agree.
        """
        if len(self.points) < least:
            return None
        lens = state.lenses.of_view[self.view]
        focal = float(state.lenses.focal[lens])
        bend = np.full(len(self.xy), state.lenses.distortion[lens])
        flat = unbent((self.xy - state.lenses.center[self.view]) / focal, bend)
        cv2.setRNGSeed(0)
        found, turn, shift, _ = cv2.solvePnPRansac(
            self.points,
            flat,
            np.eye(3),
            None,
            iterationsCount=_ITERATIONS,
            reprojectionError=far / focal,
            confidence=_CONFIDENCE,
            flags=cv2.SOLVEPNP_SQPNP,
        )
        if not found:
            return None
        rotations, translations = state.rotations.copy(), state.translations.copy()
        rotations[self.view], translations[self.view] = np.asarray(cv2.Rodrigues(turn)[0]), shift[:, 0]
        placed = replace(state, rotations=rotations, translations=translations)
        return placed if self.agreeing(placed, far) >= least else None

    def resected_with_focal(
        self, state: State, far: float, factors: Sequence[float], least: int = LEAST_POINTS
    ) -> State | None:
        """The same where the focal length of this view's lens is not known either: what fits most points.

        Args:
            state: The others; no other view has this lens.
            far: Distance in pixels up to which an observation agrees.
            factors: Of the focal length, that are tried.
            least: Points that must agree.
        """
        lens = state.lenses.of_view[self.view]
        best, most = None, 0
        for factor in factors:
            focal = state.lenses.focal.copy()
            focal[lens] *= factor
            there = replace(state, lenses=replace(state.lenses, focal=focal))
            found = self.resected(there, far, least)
            if found is not None and (agreeing := self.agreeing(found, far)) > most:
                best, most = found, agreeing
        return best


def sighting(state: State, tracks: Tracks, view: int, placed: Bool[np.ndarray, "v"], far: float) -> Sighting:
    """What a view sees of the points that the placed ones among the others agree on.

    Args:
        state: Cameras.
        tracks: What was seen.
        view: The one that looks.
        placed: Which views have a place.
        far: Distance in pixels up to which an observation agrees.
    """
    others, stays = tracks.keep((tracks.view != view) & placed[tracks.view])
    points = triangulate(state, others)
    known = replace(state, points=points)
    good = _agreed(residuals(known, others), others, far) & (largest_angles(known, others) > _LEAST_ANGLE)
    number = np.full(tracks.num_points, -1)
    number[np.flatnonzero(stays)[good]] = np.flatnonzero(good)
    mine = np.flatnonzero((tracks.view == view) & (number[tracks.point] >= 0))
    return Sighting(view, points[number[tracks.point[mine]]], tracks.xy[mine])


def relocated(state: State, tracks: Tracks, far: float) -> tuple[State, Int[np.ndarray, "k"]]:
    """Cameras, those moved to where clearly more points say that they are; and which were moved."""
    moved = []
    everyone = np.ones(len(state.rotations), bool)
    for view in range(len(state.rotations)):
        seen = sighting(state, tracks, view, everyone, far)
        other = seen.resected(state, far)
        if other is not None and seen.agreeing(other, far) > _CLEARLY * seen.agreeing(state, far):
            state = other
            moved.append(view)
    return state, np.array(moved, int)


def _agreed(off: Float[np.ndarray, "m"], tracks: Tracks, far: float) -> Bool[np.ndarray, "p"]:
    """Points all of whose observations are where they should be."""
    return np.maximum.reduceat(off, tracks.first[:-1]) < far if tracks.num_points else np.zeros(0, bool)
