"""From the cameras of a few views to those of all that can be tied to them, a layer of views at a time.

Incremental structure from motion (Schönberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016), but
points are not kept from round to round: they are placed anew from all that placed views saw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
from jaxtyping import Bool, Float, Int

from nas3r.adjustment import (
    BendConfig,
    Keypoints,
    Options,
    PlacedPoints,
    Prior,
    Sighting,
    State,
    Tracks,
    adjust,
    agreement,
    bending,
    exactness,
    place_points,
    uncertainty,
)


@dataclass(frozen=True)
class GrowthConfig:
    """How scenes grow. Distances are in pixels of an image whose longer side is 640.

    Attributes:
        near: Up to which an observation agrees with a point.
        least_angle: Degrees between two rays, at least, of points by which views are placed.
        layer: Views placed at once: share of those that are placed already.
        seen: Share of the most points that any view sees, from which a view is placed in the same layer.
        least: Points that must agree on the place of a view.
        many: Points from which a smaller share of those that a view sees must agree.
        agreeing: That share, and the one of a view that sees fewer.
        steps: Of adjustment, at most, at one scale.
        observations: Of every view, at least, that adjustment in between is done with, if there are as many.
        rounds: How often what agrees is chosen anew in the end.
        scales: Of the robust loss after a layer.
        scale: In the end.
        exact_size: Of a keypoint whose place counts half.
        sure: Standard deviation of the logarithm of a focal length from which it is sought.
        focal_factors: Of what is expected of such a focal length, that are tried.
    """

    near: float = 4.0
    least_angle: float = 1.5
    layer: float = 0.3
    seen: float = 0.6
    least: int = 10
    many: int = 15
    agreeing: tuple[float, float] = (0.3, 0.5)
    steps: int = 8
    observations: int = 150
    rounds: int = 3
    scales: tuple[float, ...] = (2.0, 1.0)
    scale: float = 0.5
    exact_size: float = 3.3
    sure: float = 0.1
    focal_factors: tuple[float, ...] = tuple(float(1.12**step) for step in range(-7, 8))


@dataclass(frozen=True)
class Grown:
    """A scene that has grown.

    Attributes:
        state: Cameras of all views, those without a place at the identity; without points.
        placed: Which views have a place [v].
    """

    state: State
    placed: Bool[np.ndarray, "v"]


class Growth:
    """One scene that grows; what all of its rounds need.

    Args:
        tracks: What all views see.
        keypoints: Of all views.
        prior: Of the lenses.
        pixel: Pixels of the images for one of an image whose longer side is 640.
        config: How.
        fixed_focal: Whether focal lengths stay.
        on_placed: Called with the number of views that have a place.
    """

    def __init__(
        self,
        tracks: Tracks,
        keypoints: Sequence[Keypoints],
        prior: Prior,
        pixel: float,
        config: GrowthConfig,
        *,
        fixed_focal: bool = False,
        on_placed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.tracks, self.keypoints, self.prior, self.config = tracks, keypoints, prior, config
        self.pixel, self.near, self.fixed_focal = pixel, config.near * pixel, fixed_focal
        self.on_placed = on_placed

    def grow(self, start: Grown) -> Grown:
        """Places views until none sees enough."""
        now = start
        while not now.placed.all():
            layer = self._layer(now)
            if layer is None:
                break
            now = self.adjusted(layer)
            self.on_placed(int(now.placed.sum()))
        return now

    def settled(self, now: Grown) -> Grown:
        """Adjusted to all that agrees, again and again; views that little ties in lose their place."""
        for _ in range(self.config.rounds):
            now = self._without_poor(self._fine(now))
        return now

    def bent(self, now: Grown, config: BendConfig) -> tuple["Growth", Grown]:
        """With lenses that bend straight lines, where observations ask for it; and what is known of them.

        Args:
            now: Settled. Lenses that bend in it do so in any case, and are found more exactly.
            config: When lenses are said to bend.
        """
        already = now.state.lenses.distortion != 0
        bends = np.full(len(already), config.spread > 0 and not self.fixed_focal)
        while bends.any():
            freer = Growth(
                self.tracks,
                self.keypoints,
                replace(self.prior, distortion_spread=np.where(bends, config.spread, 0.0)),
                self.pixel,
                self.config,
                fixed_focal=self.fixed_focal,
                on_placed=self.on_placed,
            )
            found = freer.settled(now)
            still = bends & (already | freer._bending(found, config))
            if (still == bends).all():
                better = already.any() or freer._agreement(found) > config.better * self._agreement(now)
                return (freer, found) if better else (self, now)
            bends = still
        return self, now

    def _bending(self, now: Grown, config: BendConfig) -> Bool[np.ndarray, "l"]:
        """Which lenses bend straight lines."""
        found = self.points(now, 0.0)
        state, tracks = of_placed(found.state, found.tracks, now.placed)
        options, weight = self.options(self.config.scale), self.weight(found.tracks)
        doubt = uncertainty(state, tracks, self.prior, options, weight)
        return bending(state, tracks, doubt, self.pixel, config)

    def _agreement(self, now: Grown) -> float:
        found = self.points(now, 0.0)
        return agreement(found.state, found.tracks, self.pixel)

    def points(self, now: Grown, least_angle: float | None = None) -> PlacedPoints:
        """What placed views agree on."""
        angle = self.config.least_angle if least_angle is None else least_angle
        return place_points(now.state, self.tracks, now.placed[self.tracks.view], self.near, angle)

    def adjusted(self, now: Grown) -> Grown:
        """Adjusted to a part of what agrees that leaves no view without."""
        found = self.points(now)
        keep = _covering(found.tracks.first, found.tracks.view, len(now.placed), self.config.observations)
        tracks, stays = found.tracks.keep(keep[found.tracks.point])
        state, tracks = of_placed(replace(found.state, points=found.state.points[stays]), tracks, now.placed)
        for scale in self.config.scales:
            state = adjust(state, tracks, self.prior, self.options(scale))
        return Grown(_of_all(state, now), now.placed)

    def options(self, scale: float) -> Options:
        """Of adjustment with a robust loss of so many pixels of an image whose longer side is 640."""
        return Options(scale=scale * self.pixel, steps=self.config.steps, fixed_focal=self.fixed_focal)

    def weight(self, tracks: Tracks) -> Float[np.ndarray, "m"]:
        """How much observations count."""
        return exactness(tracks, self.keypoints, self.config.exact_size * self.pixel)

    def _fine(self, now: Grown) -> Grown:
        """Adjusted to all that agrees."""
        found = self.points(now, 0.0)
        weight = self.weight(found.tracks)
        state, tracks = of_placed(found.state, found.tracks, now.placed)
        state = adjust(state, tracks, self.prior, self.options(self.config.scale), weight)
        return Grown(_of_all(state, now), now.placed)

    def _layer(self, now: Grown) -> Grown | None:
        """With those views placed that see most; None if none can be."""
        found = self.points(now)
        sightings = self._sightings(found, now.placed)
        most = max(1, round(self.config.layer * now.placed.sum()))
        enough = self.config.seen * max((len(s.points) for s in sightings), default=0)
        state, placed, added = found.state, now.placed.copy(), 0
        for seen in sightings:
            if added and (added >= most or len(seen.points) < enough):
                break
            moved = self._found(seen, state, placed)
            if moved is None or not self._agrees(seen, moved):
                continue
            state, added = moved, added + 1
            placed[seen.view] = True
        return Grown(state, placed) if added else None

    def _found(self, seen: Sighting, state: State, placed: Bool[np.ndarray, "v"]) -> State | None:
        """Where a view is; its focal length too, if that is hardly known and no view with a place says it."""
        lens = state.lenses.of_view[seen.view]
        known = self.fixed_focal or self.prior.focal_spread[lens] < self.config.sure
        if known or (placed & (state.lenses.of_view == lens)).any():
            return seen.resected(state, self.near, self.config.least)
        return seen.resected_with_focal(state, self.near, self.config.focal_factors, self.config.least)

    def _agrees(self, seen: Sighting, state: State) -> bool:
        """Whether enough of what a view sees is where it should be."""
        count = seen.agreeing(state, self.near)
        return count >= self.config.agreeing[count < self.config.many] * len(seen.points)

    def _sightings(self, found: PlacedPoints, placed: Bool[np.ndarray, "v"]) -> list[Sighting]:
        """What views without a place see of the points; most first."""
        number = found.number[self.tracks.point]
        sightings = []
        for view in np.flatnonzero(~placed).tolist():
            mine = np.flatnonzero((self.tracks.view == view) & (number >= 0))
            if len(mine) >= self.config.least:
                sightings.append(Sighting(view, found.state.points[number[mine]], self.tracks.xy[mine]))
        return sorted(sightings, key=lambda seen: -len(seen.points))

    def _without_poor(self, now: Grown) -> Grown:
        known = self.points(now, 0.0).tracks
        placed = now.placed & (np.bincount(known.view, minlength=len(now.placed)) >= self.config.least)
        return Grown(now.state, placed)


def of_placed(state: State, tracks: Tracks, placed: Bool[np.ndarray, "v"]) -> tuple[State, Tracks]:
    """The views with a place alone, renumbered."""
    number = np.cumsum(placed) - 1
    lenses = replace(state.lenses, of_view=state.lenses.of_view[placed], center=state.lenses.center[placed])
    state = State(state.rotations[placed], state.translations[placed], lenses, state.points)
    return state, replace(tracks, view=number[tracks.view])


def _of_all(state: State, now: Grown) -> State:
    """The state of all views again, without points."""
    rotations, translations = now.state.rotations.copy(), now.state.translations.copy()
    rotations[now.placed], translations[now.placed] = state.rotations, state.translations
    lenses = replace(now.state.lenses, focal=state.lenses.focal, distortion=state.lenses.distortion)
    return State(rotations, translations, lenses, np.zeros((0, 3)))


@numba.njit(cache=True)
def _covering(
    first: Int[np.ndarray, "p+1"], view: Int[np.ndarray, "m"], views: int, enough: int
) -> Bool[np.ndarray, "p"]:
    """Points, the longest tracks first, until every view has enough observations."""
    count = len(first) - 1
    length = first[1:] - first[:-1]
    keep, seen = np.zeros(count, np.bool_), np.zeros(views, np.int64)
    for p in np.argsort(-length, kind="mergesort"):
        poor = False
        for o in range(first[p], first[p + 1]):
            poor = poor or seen[view[o]] < enough
        if poor:
            keep[p] = True
            for o in range(first[p], first[p + 1]):
                seen[view[o]] += 1
    return keep
