"""`exact_cameras`: from any model's cameras and depth, and the photos at full size, to exact cameras."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nas3r.adjustment.bending import BendConfig, agreement, bending
from nas3r.adjustment.bundle import (
    Options,
    Prior,
    State,
    Uncertainty,
    adjust,
    residuals,
    uncertainty,
)
from nas3r.adjustment.coarse import CoarseViews
from nas3r.adjustment.guided import Reach
from nas3r.adjustment.incremental import place_incrementally
from nas3r.adjustment.keypoints import Keypoints, find_keypoints
from nas3r.adjustment.outcome import (
    SparseScene,
    cameras_of,
    depth_scales,
    exactness,
    in_unit,
    sparse_scene,
)
from nas3r.adjustment.pairs import chosen_pairs, verified_matches, with_guided
from nas3r.adjustment.relocation import relocated
from nas3r.adjustment.tracks import PairMatches, Tracks, join_tracks
from nas3r.adjustment.triangulation import largest_angles, triangulate
from nas3r.geometry import Cameras

_STEPS = 30
_PARALLAX = 0.5  # degrees between rays: a third of a percent of the distance, for a pixel of 640


@dataclass(frozen=True)
class AdjustmentConfig:
    """How cameras are adjusted. Distances are in pixels of an image whose longer side is 640.

    Attributes:
        near: Up to which an observation agrees with a point.
        scales: Of the robust loss, coarse to fine, where coarse cameras are not trusted.
        scale: Of the robust loss in the end.
        rounds: How often what agrees is chosen anew in the end.
        exact_size: Of a keypoint whose place counts half.
        few: Observations of a view up to which coarse cameras guide the search for more.
        reach: How far coarse cameras are trusted then: place, line, and ratio.
        least: Observations that tie a view in.
        least_points: Points that photos must have in common, seen from directions that differ.
        least_agreeing: Share of the matches verified by pairs that must agree with the cameras in the end.
        focal_spread: Standard deviation of the logarithm of the focal lengths that are given, for all lenses
            or one each; 0 for all keeps them.
        other_starts: Pairs of views from which cameras are also placed without the coarse ones.
        gates: Distances up to which observations are adjusted to, coarse to fine.
        enough: Share of the observations that agree with cameras for which nothing else is tried.
        bend: When lenses are said to bend straight lines.
    """

    near: float = 4.0
    scales: tuple[float, ...] = (8.0, 2.0, 1.0)
    scale: float = 0.5
    rounds: int = 4
    exact_size: float = 3.3
    few: int = 40
    reach: Reach = field(default_factory=lambda: Reach(77.0, 10.0, 0.85))
    least: int = 15
    least_points: int = 30
    least_agreeing: float = 0.5
    focal_spread: float | tuple[float, ...] = np.inf
    other_starts: int = 2
    gates: tuple[float, ...] = (24.0, 8.0, 4.0)
    enough: float = 0.95
    bend: BendConfig = field(default_factory=BendConfig)

    @property
    def fixed_focal(self) -> bool:
        """Whether focal lengths stay."""
        return not np.any(self.focal_spread)

    def of_lenses(self, some: Int[np.ndarray, "k"]) -> "AdjustmentConfig":
        """The same for some of the lenses."""
        if isinstance(self.focal_spread, tuple):
            return replace(self, focal_spread=tuple(self.focal_spread[lens] for lens in some.tolist()))
        return self


@dataclass(frozen=True)
class Seen:
    """What photos show, before cameras are known.

    Attributes:
        keypoints: Of every photo.
        matches: Of pairs of photos, verified.
    """

    keypoints: Sequence[Keypoints]
    matches: Sequence[PairMatches]


@dataclass(frozen=True)
class ExactCameras:
    """Cameras that explain what was seen at full size.

    Attributes:
        cameras: Batch of one, the first view's frame is the world; in the unit of the coarse depth. Pinholes:
            of a lens that bends straight lines, the one of the same focal length that does not.
        depth_scale: What to multiply every view's coarse depth by, so that it fits [v].
        sparse: The points.
        tied: Which views the points tie in; the others are where the model had them [v].
        uncertainty: Standard deviations.
        focal: Focal lengths in pixels, one for each lens [l].
        distortion: First radial coefficient k1 of each lens; 0 where photos do not ask for one [l].
    """

    cameras: Cameras
    depth_scale: Float[Tensor, "v"]
    sparse: SparseScene
    tied: Bool[np.ndarray, "v"]
    uncertainty: Uncertainty
    focal: Float[np.ndarray, "l"]
    distortion: Float[np.ndarray, "l"]


class NotAdjustableError(ValueError):
    """The photos do not say enough: coarse cameras are the best there are. Its text says why."""


def exact_cameras(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    cameras: Cameras,
    depth: Float[Tensor, "v h2 w2"],
    *,
    lens_of_view: Int[np.ndarray, "v"] | None = None,
    config: AdjustmentConfig | None = None,
) -> ExactCameras:
    """Finds points in all photos, and the cameras that explain where they are seen.

    Cameras are sought from the coarse ones, and without them from pairs of views; what more points agree with
    is kept.

    Args:
        images: Photos of one size.
        cameras: Of any model, batch of one.
        depth: z-depth of the views at any size, of the same part of the scene, in the unit of the poses.
        lens_of_view: Which views were taken with the same lens and zoom, numbered from 0; default: all.
        config: How.

    Raises:
        NotAdjustableError: If too few points are seen, or they do not agree.
    """
    lens_of_view = np.zeros(len(images), int) if lens_of_view is None else lens_of_view
    coarse = CoarseViews.of(cameras, depth, (images[0].shape[1], images[0].shape[0]), lens_of_view)
    keypoints = [find_keypoints(image) for image in images]
    seen = Seen(keypoints, verified_matches(keypoints, chosen_pairs(coarse), max(coarse.size)))
    return exact_cameras_of(seen, coarse, config)


def exact_cameras_of(seen: Seen, coarse: CoarseViews, config: AdjustmentConfig | None = None) -> ExactCameras:
    """The same from what photos show.

    Args:
        seen: Points of the photos.
        coarse: Cameras and depth of any model.
        config: How.

    Raises:
        NotAdjustableError: If too few points are seen, or they do not agree.
    """
    return _Adjustment(coarse, seen, config or AdjustmentConfig()).run()


class _Adjustment:
    """One run; what all of its stages need."""

    def __init__(self, coarse: CoarseViews, seen: Seen, config: AdjustmentConfig) -> None:
        self.coarse, self.keypoints, self.matches, self.config = coarse, seen.keypoints, seen.matches, config
        self.views = len(self.keypoints)
        self.pixel = max(coarse.size) / 640
        self.near = config.near * self.pixel
        lenses = coarse.state.lenses
        self.prior = Prior.around(lenses.focal, config.focal_spread)
        self.fixed_focal = config.fixed_focal

    def run(self) -> ExactCameras:
        tracks = self._seen()
        if tracks.num_points < self.config.least_points:
            raise NotAdjustableError(f"photos have {tracks.num_points} points in common")
        state, known = self._best(tracks)
        tied = np.bincount(known.view, minlength=self.views) >= self.config.least
        share = len(known.view) / len(tracks.view)
        if tied.sum() < 2 or share < self.config.least_agreeing:
            raise NotAdjustableError(
                f"{100 * share:.0f} % of the points that photos have in common agree on their cameras, "
                f"in {int(tied.sum())} of {self.views} photos"
            )
        wide = int((largest_angles(state, known) > _PARALLAX).sum())
        if wide < self.config.least_points:
            raise NotAdjustableError(f"only {wide} points are seen from directions that differ")
        state, known, prior = self._bent(state, known, tracks)
        tied = np.bincount(known.view, minlength=self.views) >= self.config.least
        return self._result(state, known, prior, tied)

    def _seen(self) -> Tracks:
        """Tracks of matches by looks alone; where a view has few of them, coarse cameras help."""
        tracks = self._joined(self.matches)
        poor = np.bincount(tracks.view, minlength=self.views) < self.config.few
        if not poor.any():
            return tracks
        reach = self.config.reach
        reach = replace(reach, place=reach.place * self.pixel, line=reach.line * self.pixel)
        return self._joined(with_guided(self.coarse, self.keypoints, self.matches, poor, reach))

    def _joined(self, matches: Sequence[PairMatches]) -> Tracks:
        return join_tracks([k.xy for k in self.keypoints], matches)

    def _best(self, tracks: Tracks) -> tuple[State, Tracks]:
        """Of cameras found from several starts, those that observations agree with most; and what agrees."""
        best, most = None, -np.inf
        for start in self._starts(tracks):
            state, known = self._cleaned(self._settled(start, tracks, self.prior), tracks, self.prior)
            if best is None or self._score(state, known) > most:
                best, most = (state, known), self._score(state, known)
            if len(best[1].view) > self.config.enough * len(tracks.view):
                break
        assert best is not None
        return best

    def _starts(self, tracks: Tracks) -> Iterator[State]:
        """The coarse cameras; the same led by all that was seen; cameras placed one by one without them."""
        yield self.coarse.state
        yield self._adjusted(self.coarse.state, tracks, self.config.scales)
        for first in self._closest(tracks):
            placed = place_incrementally(self.coarse.state.lenses, tracks, first, self.prior, self.near)
            if placed is not None and placed[1].all():
                yield placed[0]

    def _settled(self, state: State, tracks: Tracks, prior: Prior) -> State:
        """Adjusted to what agrees, nearer and nearer; views that are lost are found again."""
        for gate in self.config.gates:
            state = self._gated(state, tracks, gate, prior)
        for _ in range(self.views):
            state, moved = relocated(state, tracks, self.near)
            state = self._gated(state, tracks, self.config.gates[-1], prior)
            if not len(moved):
                break
        return state

    def _gated(self, state: State, tracks: Tracks, gate: float, prior: Prior) -> State:
        """Adjusted to the observations that are within so many pixels, as the state has them."""
        state = replace(state, points=triangulate(state, tracks))
        known, stays = tracks.keep(residuals(state, tracks) < gate * self.pixel)
        state = replace(state, points=state.points[stays])
        state = adjust(state, known, prior, self._options(gate / 4), self._weight(known))
        return replace(state, points=triangulate(state, tracks))

    def _closest(self, tracks: Tracks) -> list[tuple[int, int]]:
        """Pairs of views with the most tracks in common."""
        seen = np.zeros((tracks.num_points, self.views), bool)
        seen[tracks.point, tracks.view] = True
        shared = np.triu(seen.astype(int).T @ seen.astype(int), 1)
        order = np.argsort(-shared, axis=None, kind="stable")[: self.config.other_starts]
        return [(int(k) // self.views, int(k) % self.views) for k in order]

    def _score(self, state: State, tracks: Tracks) -> float:
        """How many observations agree, each as far as it does, with points that parallax fixes.

        Cameras that are wrong as a whole, as of a scene turned inside out, agree with as many, less exactly.
        """
        off = residuals(state, tracks) / self.pixel
        fixed = largest_angles(state, tracks) > _PARALLAX
        return float((fixed[tracks.point] / (1 + off**2)).sum())

    def _adjusted(self, state: State, tracks: Tracks, scales: Sequence[float]) -> State:
        state = replace(state, points=triangulate(state, tracks))
        for scale in scales:
            state = adjust(state, tracks, self.prior, self._options(scale))
        return state

    def _options(self, scale: float) -> Options:
        return Options(scale=scale * self.pixel, steps=_STEPS, fixed_focal=self.fixed_focal)

    def _weight(self, tracks: Tracks) -> Float[np.ndarray, "m"]:
        return exactness(tracks, self.keypoints, self.config.exact_size * self.pixel)

    def _bent(self, state: State, known: Tracks, tracks: Tracks) -> tuple[State, Tracks, Prior]:
        """With lenses that bend straight lines, where observations ask for it; and what is known of those."""
        lenses = len(state.lenses.focal)
        bends = np.full(lenses, self.config.bend.spread > 0 and not self.fixed_focal)
        while bends.any():
            prior = replace(self.prior, distortion_spread=np.where(bends, self.config.bend.spread, 0.0))
            bent, seen = self._cleaned(state, tracks, prior)
            doubt = self._doubt(bent, seen, prior)
            still = bends & bending(bent, seen, doubt, self.pixel, self.config.bend)
            if (still == bends).all():
                bent, seen = self._cleaned(self._settled(bent, tracks, prior), tracks, prior)
                before, after = (agreement(*one, self.pixel) for one in ((state, known), (bent, seen)))
                better = after > self.config.bend.better * before
                return (bent, seen, prior) if better else (state, known, self.prior)
            bends = still
        return state, known, self.prior

    def _doubt(self, state: State, tracks: Tracks, prior: Prior) -> Uncertainty:
        return uncertainty(state, tracks, prior, self._options(self.config.scale), self._weight(tracks))

    def _cleaned(self, state: State, tracks: Tracks, prior: Prior) -> tuple[State, Tracks]:
        """Adjusted to what agrees, again and again: what agrees changes as cameras get better."""
        known = tracks
        for _ in range(self.config.rounds):
            state = replace(state, points=triangulate(state, tracks))
            known, stays = tracks.keep(residuals(state, tracks) < self.near)
            state = replace(state, points=state.points[stays])
            state = adjust(state, known, prior, self._options(self.config.scale), self._weight(known))
        return state, known

    def _result(
        self, state: State, tracks: Tracks, prior: Prior, tied: Bool[np.ndarray, "v"]
    ) -> ExactCameras:
        scale = depth_scales(state, tracks, self.coarse.depth, self.coarse.size, tied)
        state = in_unit(state, float(np.median(scale[tied])))
        scale = scale / np.median(scale[tied])
        state = self._with_untied(state, tied)
        return ExactCameras(
            cameras=cameras_of(state, self.coarse.size),
            depth_scale=torch.from_numpy(scale).float(),
            sparse=sparse_scene(state, tracks, self.keypoints),
            tied=tied,
            uncertainty=self._doubt(state, tracks, prior),
            focal=state.lenses.focal,
            distortion=state.lenses.distortion,
        )

    def _with_untied(self, state: State, tied: Bool[np.ndarray, "v"]) -> State:
        """Views that no points tie in, where the model had them beside the nearest one that is tied."""
        rotations, translations = state.rotations.copy(), state.translations.copy()
        start = self.coarse.state
        for view in np.flatnonzero(~tied).tolist():
            nearest = min(np.flatnonzero(tied).tolist(), key=lambda other: abs(other - view))
            turn = start.rotations[view] @ start.rotations[nearest].T
            shift = start.translations[view] - turn @ start.translations[nearest]
            rotations[view] = turn @ state.rotations[nearest]
            translations[view] = turn @ state.translations[nearest] + shift
        return replace(state, rotations=rotations, translations=translations)
