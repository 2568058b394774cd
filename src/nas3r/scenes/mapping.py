"""`map_scene`: from many pictures to the cameras of all that can be tied together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nas3r.adjustment import (
    AdjustmentConfig,
    CoarseViews,
    ExactCameras,
    Keypoints,
    Lenses,
    NotAdjustableError,
    PairMatches,
    Prior,
    Seen,
    SparseScene,
    State,
    Tracks,
    Uncertainty,
    cameras_of,
    exact_cameras_of,
    find_keypoints,
    join_tracks,
    sparse_scene,
    uncertainty,
)
from nas3r.geometry import Cameras, invert_pose
from nas3r.scenes.circles import contradicting
from nas3r.scenes.growing import Grown, Growth, GrowthConfig, of_placed
from nas3r.scenes.merging import merged
from nas3r.scenes.retrieval import candidate_pairs, describe
from nas3r.scenes.seeds import seed_views
from nas3r.scenes.view_graph import ViewGraph, build_graph

_LEAST_VIEWS = 2  # of a part

Coarse = Callable[[Int[np.ndarray, "k"]], tuple[Cameras, Float[Tensor, "k h w"]]]


@dataclass(frozen=True)
class MapConfig:
    """How many pictures become a scene.

    Attributes:
        keypoints: Of every picture, at most; and of many pictures, so that they take less time.
        many: Pictures from which that is so.
        seed: Views that a part begins with.
        starts: Parts that are begun, at most.
        adjustment: Of the first views of a part.
        growth: From those to all.
    """

    keypoints: tuple[int, int] = (4000, 2500)
    many: int = 60
    seed: int = 8
    starts: int = 6
    adjustment: AdjustmentConfig = field(default_factory=AdjustmentConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)


@dataclass(frozen=True)
class Part:
    """Cameras of pictures that points tie together.

    Attributes:
        views: Which of the pictures, ascending [k].
        cameras: Theirs, batch of one; the first one's frame is the world.
        state: The same, with points, in pixels of the images; lenses that bend straight lines do so in it.
        sparse: The points.
        uncertainty: Standard deviations.
    """

    views: Int[np.ndarray, "k"]
    cameras: Cameras
    state: State
    sparse: SparseScene
    uncertainty: Uncertainty


@dataclass(frozen=True)
class MappedScene:
    """What many pictures became.

    Attributes:
        parts: That nothing ties together; the largest first.
        left_out: Pictures that are in none, each with the reason as the end of a sentence about it.
        graph: Who sees what.
        contradicting: Pairs that were left out, because they contradict others.
    """

    parts: list[Part]
    left_out: dict[int, str]
    graph: ViewGraph
    contradicting: int = 0


@dataclass(frozen=True)
class ComparedPictures:
    """What pictures show, before any camera is known.

    Attributes:
        keypoints: Of every picture.
        graph: Who sees what.
    """

    keypoints: list[Keypoints]
    graph: ViewGraph


def map_scene(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    coarse: Coarse,
    *,
    compared: ComparedPictures | None = None,
    lens_of_view: Int[np.ndarray, "v"] | None = None,
    told_focal: Float[np.ndarray, "l"] | None = None,
    config: MapConfig | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> MappedScene:
    """Cameras of many pictures, from those of a few that a model gives.

    Args:
        images: Of one size.
        coarse: What a model says of some of them: cameras (batch of one) and z-depth at any size.
        compared: What `compare_pictures` found; default: is found now.
        lens_of_view: Which were taken with the same lens and zoom, numbered from 0; default: all.
        told_focal: What is known of the focal lengths of those lenses, in pixels of the images; NaN where
            nothing is. How well it is known is up to `config.adjustment.focal_spread`.
        config: How.
        on_progress: Called with (what, done, total).

    Raises:
        NotAdjustableError: If no few views could be begun with.
    """
    config = config or MapConfig()
    lens_of_view = np.zeros(len(images), int) if lens_of_view is None else lens_of_view
    compared = compared or compare_pictures(images, config, on_progress=on_progress)
    size = (images[0].shape[1], images[0].shape[0])
    told = np.full(int(lens_of_view.max()) + 1, np.nan) if told_focal is None else told_focal
    return _Mapping(compared, size, lens_of_view, told, coarse, config, on_progress).run()


def map_known(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    cameras: Cameras,
    told: Bool[np.ndarray, "v"],
    *,
    compared: ComparedPictures | None = None,
    lens_of_view: Int[np.ndarray, "v"] | None = None,
    adjust: bool = False,
    config: MapConfig | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> MappedScene:
    """Points of pictures whose cameras are known.

    Args:
        images: Of one size.
        cameras: Of the pictures, batch of one; the unit stays.
        told: Of which of them they are known. Others are left out, or tied in if cameras are adjusted.
        compared: What `compare_pictures` found; default: is found now.
        lens_of_view: Which were taken with the same lens and zoom, numbered from 0; default: all.
        adjust: Whether known cameras are only to begin with.
        config: How.
        on_progress: Called with (what, done, total).

    Raises:
        NotAdjustableError: If pictures have too few points in common that agree with the cameras.
    """
    config = config or MapConfig()
    lens_of_view = np.zeros(len(images), int) if lens_of_view is None else lens_of_view
    coarse = CoarseViews.of(
        cameras, torch.ones(len(images), 2, 2), (images[0].shape[1], images[0].shape[0]), lens_of_view
    )
    compared = compared or compare_pictures(images, config, on_progress=on_progress)
    told_focal = coarse.state.lenses.focal

    def unasked(_: Int[np.ndarray, "k"]) -> tuple[Cameras, Float[Tensor, "k h w"]]:
        raise AssertionError("known cameras need no model")

    mapping = _Mapping(compared, coarse.size, lens_of_view, told_focal, unasked, config, on_progress)
    return mapping.run_known(coarse.state, told, adjust=adjust)


def compare_pictures(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    config: MapConfig | None = None,
    *,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> ComparedPictures:
    """Points of all pictures, and who sees what; knows of no cameras.

    Args:
        images: Of one size.
        config: How.
        on_progress: Called with (what, done, total).
    """
    config = config or MapConfig()
    most = config.keypoints[len(images) > config.many]
    keypoints = []
    for done, image in enumerate(images, 1):
        keypoints.append(find_keypoints(image, most))
        on_progress("finding points", done, len(images))
    graph = build_graph(
        keypoints,
        candidate_pairs(describe(keypoints)),
        max(images[0].shape[:2]),
        lambda done, count: on_progress("comparing pictures", done, count),
    )
    return ComparedPictures(keypoints, graph)


class _Mapping:
    """One run; what all of its stages need."""

    def __init__(
        self,
        compared: ComparedPictures,
        size: tuple[int, int],
        lens_of_view: Int[np.ndarray, "v"],
        told_focal: Float[np.ndarray, "l"],
        coarse: Coarse,
        config: MapConfig,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self.keypoints, self.graph = compared.keypoints, compared.graph
        self.size, self.lens_of_view, self.told_focal = size, lens_of_view, told_focal
        self.coarse, self.config, self.on_progress = coarse, config, on_progress
        self.contradicting: int | None = None
        self.tracks = self._joined_tracks()

    def run(self) -> MappedScene:
        parts: list[tuple[Growth, Grown]] = []
        free, reason = np.ones(self.graph.views, bool), ""
        for _ in range(self.config.starts):
            views = seed_views(self.graph, free, self.config.seed)
            if not len(views):
                break
            try:
                growth, start = self._begun(views)
            except NotAdjustableError as error:
                free[views] = False
                reason = str(error)
                continue
            if self.contradicting is None and self._leave_out_contradicting(start.state.lenses):
                continue  # the first views may have been tied by just those pairs
            grown = growth.settled(growth.grow(growth.settled(growth.grow(start))))
            free &= ~grown.placed
            parts.append((growth, grown))
        if not parts:
            raise NotAdjustableError(reason or "no pictures see the same from different places")
        done = self._apart(self._joined(parts))
        return MappedScene(done, self._left_out(done), self.graph, self.contradicting or 0)

    def run_known(self, state: State, told: Bool[np.ndarray, "v"], *, adjust: bool) -> MappedScene:
        prior = Prior.around(state.lenses.focal, self.config.adjustment.focal_spread)
        growth, known = self._growth(prior), Grown(state, told)
        if adjust:
            known = growth.settled(growth.grow(growth.settled(known)))
        found = growth.points(known, 0.0)
        if found.tracks.num_points < self.config.adjustment.least_points:
            raise NotAdjustableError(
                f"only {found.tracks.num_points} points of the pictures agree with their cameras"
            )
        seen = np.bincount(found.tracks.view, minlength=len(told)) > 0
        known = Grown(known.state, known.placed & seen)
        bent = growth.bent(known, self.config.adjustment.bend) if adjust else (growth, known)
        part = self._part(*bent)
        left_out = self._left_out([part])
        if not adjust:
            left_out |= dict.fromkeys(np.flatnonzero(~told).tolist(), "has no camera that is told")
        return MappedScene([part], left_out, self.graph)

    def _begun(self, views: Int[np.ndarray, "k"]) -> tuple[Growth, Grown]:
        """A few views with exact cameras."""
        cameras, depth = self.coarse(views)
        own_lenses, lens = np.unique(self.lens_of_view[views], return_inverse=True)
        coarse = CoarseViews.of(cameras, depth, self.size, lens)
        exact = exact_cameras_of(self._seen(views), coarse, self.config.adjustment.of_lenses(own_lenses))
        lenses, prior = self._lenses(own_lenses, exact, coarse)
        count = self.graph.views
        rotations, translations = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3))
        pose = invert_pose(exact.cameras.world_from_camera[0].double()).numpy()
        rotations[views], translations[views] = pose[:, :3, :3], pose[:, :3, 3]
        placed = np.zeros(count, bool)
        placed[views[exact.tied]] = True
        return self._growth(prior), Grown(State(rotations, translations, lenses, np.zeros((0, 3))), placed)

    def _joined_tracks(self) -> Tracks:
        return join_tracks([k.xy for k in self.keypoints], self.graph.pairs)

    def _leave_out_contradicting(self, lenses: Lenses) -> bool:
        """Whether there were pairs of things that only look the same; focal lengths show which they are."""
        pairs = self.graph.pairs
        wrong = contradicting(pairs, self.keypoints, self.tracks, lenses, max(self.size) / 640)
        self.contradicting = int(wrong.sum())
        if not self.contradicting:
            return False
        kept = [pair for pair, leave in zip(pairs, wrong, strict=True) if not leave]
        self.graph = ViewGraph(self.graph.views, kept, self.graph.parallax[~wrong])
        self.tracks = self._joined_tracks()
        return True

    def _growth(self, prior: Prior) -> Growth:
        return Growth(
            self.tracks,
            self.keypoints,
            prior,
            max(self.size) / 640,
            self.config.growth,
            fixed_focal=self.config.adjustment.fixed_focal,
            on_placed=lambda number: self.on_progress("placing pictures", number, self.graph.views),
        )

    def _seen(self, views: Int[np.ndarray, "k"]) -> Seen:
        number = {view: i for i, view in enumerate(views.tolist())}
        matches = [
            PairMatches((number[pair.views[0]], number[pair.views[1]]), pair.indices)
            for pair in self.graph.pairs
            if pair.views[0] in number and pair.views[1] in number
        ]
        return Seen([self.keypoints[view] for view in views.tolist()], matches)

    def _lenses(
        self, own: Int[np.ndarray, "k"], exact: ExactCameras, coarse: CoarseViews
    ) -> tuple[Lenses, Prior]:
        """Those of the first views as they were found; of other lenses, as told or like those."""
        typical = float(np.median(exact.focal))
        focal = np.where(np.isfinite(self.told_focal), self.told_focal, typical)
        expected = focal.copy()
        focal[own], expected[own] = exact.focal, coarse.state.lenses.focal
        distortion = np.zeros(len(focal))
        distortion[own] = exact.distortion
        center = np.tile(np.array(self.size) / 2, (self.graph.views, 1))
        prior = Prior.around(expected, self.config.adjustment.focal_spread)
        return Lenses(self.lens_of_view, focal, distortion, center), prior

    def _joined(self, parts: Sequence[tuple[Growth, Grown]]) -> list[tuple[Growth, Grown]]:
        """Parts that have placed the same points, as one; the largest first."""
        left = sorted(parts, key=lambda part: -int(part[1].placed.sum()))
        done = []
        while left:
            growth, grown = left.pop(0)
            for other in list(left):
                both = merged(growth, grown, other[1])
                if both is None:
                    continue
                both = growth.settled(growth.grow(growth.settled(both)))
                if (both.placed & other[1].placed).sum() > (other[1].placed.sum() + 1) // 2:
                    grown = both
                    left.remove(other)
            done.append((growth, grown))
        return done

    def _apart(self, parts: Sequence[tuple[Growth, Grown]]) -> list[Part]:
        """Parts without the views that a larger one has too; the largest first."""
        free, done = np.ones(self.graph.views, bool), []
        for growth, grown in sorted(parts, key=lambda part: -int(part[1].placed.sum())):
            own = Grown(grown.state, grown.placed & free)
            if own.placed.sum() >= _LEAST_VIEWS:
                done.append(self._part(*growth.bent(own, self.config.adjustment.bend)))
                free &= ~own.placed
        return done

    def _part(self, growth: Growth, grown: Grown) -> Part:
        """A part as it leaves this room."""
        found = growth.points(grown, 0.0)
        views = np.flatnonzero(grown.placed)
        state, tracks = of_placed(found.state, found.tracks, grown.placed)
        weight = growth.weight(found.tracks)
        doubt = uncertainty(state, tracks, growth.prior, growth.options(self.config.growth.scale), weight)
        sparse = sparse_scene(state, tracks, [self.keypoints[view] for view in views.tolist()])
        return Part(views, cameras_of(state, self.size), state, sparse, doubt)

    def _left_out(self, parts: Sequence[Part]) -> dict[int, str]:
        """Why pictures have no place."""
        strength = self.graph.strength
        placed = np.zeros(self.graph.views, bool)
        for part in parts:
            placed[part.views] = True
        reasons = {}
        for view in np.flatnonzero(~placed).tolist():
            if not strength[view].any():
                reasons[view] = "shows nothing that another picture shows"
            elif not strength[view][placed].any():
                reasons[view] = "shows nothing that the placed pictures show"
            else:
                reasons[view] = "has too few points in common with the others"
        return reasons
