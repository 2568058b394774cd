"""Bundle adjustment: poses, lenses and points for which points project to where they were seen.

Levenberg's and Marquardt's steps with the points eliminated, and a robust loss (Cauchy, scaled in pixels).
Ceres, by way of COLMAP's bindings, has no prior on a focal length that can be given a width, nor weights of
observations; both are needed here, and a hundred views are few enough for dense equations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from nas3r.adjustment.normal_equations import point_steps, reduced_equations
from nas3r.adjustment.tracks import Tracks

_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-9, 1e6
_BEHIND = 1e-6  # least z-depth at which a point is projected
_ENOUGH = 1e-7  # relative gain of a step below which nothing more is to be had


@dataclass(frozen=True)
class Lenses:
    """What turns directions into pixels, for groups of views that share a camera.

    Attributes:
        of_view: Which lens a view was taken with [v].
        focal: In pixels [l].
        distortion: First radial coefficient k1: a direction at distance r from the axis appears at
            r (1 + k1 r^2) [l].
        center: Principal points in pixels, of every view [v, 2].
    """

    of_view: Int[np.ndarray, "v"]
    focal: Float[np.ndarray, "l"]
    distortion: Float[np.ndarray, "l"]
    center: Float[np.ndarray, "v 2"]

    def project(
        self, local: Float[np.ndarray, "m 3"], view: Int[np.ndarray, "m"]
    ) -> Float[np.ndarray, "m 2"]:
        """Pixels of points in the frames of the views that see them; without meaning behind a camera."""
        lens = self.of_view[view]
        flat = local[:, :2] / np.maximum(local[:, 2:], _BEHIND)
        bent = flat * (1 + self.distortion[lens] * np.square(flat).sum(1))[:, None]
        return self.focal[lens][:, None] * bent + self.center[view]


@dataclass(frozen=True)
class State:
    """Everything that is adjusted.

    Attributes:
        rotations: Camera from world [v, 3, 3].
        translations: Camera from world [v, 3].
        lenses: Of the views.
        points: In the world [p, 3].
    """

    rotations: Float[np.ndarray, "v 3 3"]
    translations: Float[np.ndarray, "v 3"]
    lenses: Lenses
    points: Float[np.ndarray, "p 3"]

    @property
    def centers(self) -> Float[np.ndarray, "v 3"]:
        """Of the cameras, in the world."""
        return -np.einsum("vji,vj->vi", self.rotations, self.translations)


@dataclass(frozen=True)
class Prior:
    """What is known of lenses before points are looked at.

    Attributes:
        focal: Expected focal lengths in pixels [l].
        focal_spread: Standard deviation of their logarithms [l]; infinite where nothing is known.
        distortion_spread: Standard deviations of distortions around none [l]; 0 leaves one as it is.
    """

    focal: Float[np.ndarray, "l"]
    focal_spread: Float[np.ndarray, "l"]
    distortion_spread: Float[np.ndarray, "l"]

    @staticmethod
    def around(
        focal: Float[np.ndarray, "l"],
        spread: float | Sequence[float],
        distortion_spread: float | Float[np.ndarray, "l"] = 0.0,
    ) -> "Prior":
        """One spread for all lenses or one each; with 0 focal lengths are to stay (see `Options`)."""
        wide = np.broadcast_to(np.asarray(spread, float), focal.shape)
        bend = np.broadcast_to(np.asarray(distortion_spread, float), focal.shape)
        return Prior(focal, np.where(wide > 0, wide, np.inf), bend)

    @property
    def bend_width(self) -> Float[np.ndarray, "l"]:
        """Standard deviations of distortions that are free; infinite for those that stay and draw nothing."""
        return np.where(self.distortion_spread > 0, self.distortion_spread, np.inf)


@dataclass(frozen=True)
class Options:
    """How to adjust.

    Attributes:
        scale: Of the robust loss, in pixels.
        steps: At most.
        fixed_focal: Whether focal lengths stay as they are.
    """

    scale: float = 1.0
    steps: int = 50
    fixed_focal: bool = False


def project_points(state: State, tracks: Tracks) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "m"]]:
    """Where observations should be, in pixels, and their z-depths."""
    local = _local(state, tracks)
    return state.lenses.project(local, tracks.view), local[:, 2]


def residuals(state: State, tracks: Tracks) -> Float[np.ndarray, "m"]:
    """Distances in pixels of where points project to from where they were seen; infinite behind a camera."""
    xy, depth = project_points(state, tracks)
    return np.where(depth > _BEHIND, np.linalg.norm(xy - tracks.xy, axis=1), np.inf)


def adjust(
    state: State,
    tracks: Tracks,
    prior: Prior,
    options: Options,
    weight: Float[np.ndarray, "m"] | None = None,
) -> State:
    """A state near the given one with the least robust error.

    The frame and the unit are those of the start: the first view stays, and so does the mean distance of the
    others from it.

    Args:
        state: The start.
        tracks: What was seen.
        prior: Of the lenses.
        options: How to adjust.
        weight: How much every observation counts: the inverse of its variance, in inverse square pixels.
    """
    weight = np.ones(len(tracks.view)) if weight is None else weight
    unit = _extent(state)
    damping, cost = _FIRST_DAMPING, _cost(state, tracks, prior, options, weight)
    for _ in range(options.steps):
        equations = _Equations.of(state, tracks, prior, options, weight)
        while damping <= _MOST_DAMPING:
            moved = equations.step(state, tracks, damping)
            after = _cost(moved, tracks, prior, options, weight)
            if after < cost:
                break
            damping *= 8
        else:
            break
        gained, state, cost = cost - after, moved, after
        damping = max(damping / 8, _LEAST_DAMPING)
        if gained < _ENOUGH * cost:
            break
    return _scaled(state, unit)


@dataclass(frozen=True)
class Uncertainty:
    """Standard deviations of what was adjusted, for observations that scatter as they were found to.

    Attributes:
        focal: Of the logarithms of focal lengths [l].
        distortion: Of distortions [l].
        rotation: Of every view about the first, in radians: the largest of three axes [v].
        center: Of every view's centre, in the unit of the state: the largest of three axes [v].
        pixels: Of a coordinate of an observation of weight 1.
    """

    focal: Float[np.ndarray, "l"]
    distortion: Float[np.ndarray, "l"]
    rotation: Float[np.ndarray, "v"]
    center: Float[np.ndarray, "v"]
    pixels: float


def uncertainty(
    state: State, tracks: Tracks, prior: Prior, options: Options, weight: Float[np.ndarray, "m"] | None = None
) -> Uncertainty:
    """How exactly an adjusted state is known: the inverse of the normal equations.

    The first view has none, since its frame is the world; neither has the unit.

    Args:
        state: Adjusted.
        tracks: What was seen, without outliers.
        prior: Of the lenses.
        options: It was adjusted with.
        weight: Ditto.
    """
    weight = np.ones(len(tracks.view)) if weight is None else weight
    equations = _Equations.of(state, tracks, prior, options, weight)
    # From the median, since tails are long: that of the sum of two squared normal coordinates is 1.386.
    scatter = np.median(weight * np.square(equations.residual).sum(1)) / 1.386 if len(tracks.view) else 0.0
    freedom = 2 * len(tracks.view) - 3 * tracks.num_points - len(equations.free) + 1
    scatter *= 2 * len(tracks.view) / max(freedom, 1)  # points have moved towards what was seen
    views, lenses = len(state.rotations), len(state.lenses.focal)
    covariance = equations.covariance(tracks, state) * scatter
    own = covariance[: 6 * views, : 6 * views].reshape(views, 6, views, 6)
    each = own[np.arange(views), :, np.arange(views)]
    # The centre is -R^T t: it shifts by -R^T (dt - w x t) for a turn w and a shift dt.
    across = np.concatenate([_cross(state.translations), np.tile(np.eye(3), (views, 1, 1))], 2)
    center = across @ each @ across.transpose(0, 2, 1)
    lens = np.sqrt(np.maximum(np.diagonal(covariance)[6 * views :].reshape(lenses, 2), 0))
    return Uncertainty(
        focal=lens[:, 0],
        distortion=lens[:, 1],
        rotation=_largest(each[:, :3, :3]),
        center=_largest(center),
        pixels=float(np.sqrt(scatter)),
    )


def _largest(covariances: Float[np.ndarray, "v 3 3"]) -> Float[np.ndarray, "v"]:
    """Standard deviation along the longest axis."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(covariances)[:, -1], 0))


def _local(state: State, tracks: Tracks) -> Float[np.ndarray, "m 3"]:
    points = state.points[tracks.point]
    rotated = np.einsum("mij,mj->mi", state.rotations[tracks.view], points)
    return rotated + state.translations[tracks.view]


def _cost(state: State, tracks: Tracks, prior: Prior, options: Options, weight: np.ndarray) -> float:
    xy, depth = project_points(state, tracks)
    squared = weight * np.square(xy - tracks.xy).sum(1)
    squared = np.where(depth > _BEHIND, squared, 1e12)
    scale = options.scale**2
    return float(scale * np.log1p(squared / scale).sum() + np.square(_prior_residuals(state, prior)).sum())


def _prior_residuals(state: State, prior: Prior) -> Float[np.ndarray, "l 2"]:
    focal = np.log(state.lenses.focal / prior.focal) / prior.focal_spread
    return np.stack([focal, state.lenses.distortion / prior.bend_width], 1)


@dataclass(frozen=True)
class _Equations:
    """Derivatives at a state. Camera parameters: six of every view, then two of every lens."""

    place: Int[np.ndarray, "m 8"]
    by_camera: Float[np.ndarray, "m 2 8"]
    by_point: Float[np.ndarray, "m 2 3"]
    residual: Float[np.ndarray, "m 2"]
    weight: Float[np.ndarray, "m"]
    prior_matrix: Float[np.ndarray, "c c"]
    prior_side: Float[np.ndarray, "c"]
    free: Int[np.ndarray, "c"]

    @staticmethod
    def of(state: State, tracks: Tracks, prior: Prior, options: Options, weight: np.ndarray) -> "_Equations":
        views, lenses = len(state.rotations), len(state.lenses.focal)
        local = _local(state, tracks)
        residual = state.lenses.project(local, tracks.view) - tracks.xy
        by_local, by_lens = _slopes(state.lenses, tracks, local)
        rotation = state.rotations[tracks.view]
        # A small turn w and shift t of the camera: local becomes local + w x local + t.
        by_turn = -by_local @ _cross(local - state.translations[tracks.view])
        by_camera = np.concatenate([by_turn, by_local, by_lens], 2)
        squared = weight * np.square(residual).sum(1)
        robust = weight / (1 + squared / options.scale**2) * (local[:, 2] > _BEHIND)
        lens = state.lenses.of_view[tracks.view]
        place = np.concatenate(
            [6 * tracks.view[:, None] + np.arange(6), 6 * views + 2 * lens[:, None] + np.arange(2)], 1
        )
        size = 6 * views + 2 * lenses
        matrix, side = np.zeros((size, size)), np.zeros(size)
        spread = np.stack([prior.focal_spread, prior.bend_width], 1).ravel()
        own = 6 * views + np.arange(2 * lenses)
        matrix[own, own] = 1 / spread**2
        side[own] = -_prior_residuals(state, prior).ravel() / spread
        held = np.zeros(size, bool)
        held[:6] = True  # the first view's frame is the world's
        if options.fixed_focal:
            held[own[::2]] = True
        held[own[1::2]] = prior.distortion_spread == 0
        seen = np.bincount(tracks.view, minlength=views) > 0
        held[: 6 * views] |= ~np.repeat(seen, 6)
        return _Equations(
            place, by_camera, by_local @ rotation, residual, robust, matrix, side, np.flatnonzero(~held)
        )

    def step(self, state: State, tracks: Tracks, damping: float) -> State:
        """The state after a damped step."""
        size = len(self.prior_side)
        matrix, side, inverse, own = reduced_equations(
            tracks.first, self.place, self.by_camera, self.by_point, self.residual, self.weight, damping, size
        )
        matrix, side = matrix + self.prior_matrix, side + self.prior_side
        # Marquardt's damping is relative to the whole diagonal, not to what is left of it without the points.
        diagonal = np.zeros(size)
        np.add.at(diagonal, self.place, self.weight[:, None] * np.square(self.by_camera).sum(1))
        matrix[np.arange(size), np.arange(size)] += damping * diagonal + 1e-12
        moved = np.zeros(size)
        part = np.ix_(self.free, self.free)
        try:
            moved[self.free] = np.linalg.solve(matrix[part], side[self.free])
        except np.linalg.LinAlgError:
            return state
        points = point_steps(
            tracks.first, self.place, self.by_camera, self.by_point, self.weight, inverse, own, moved
        )
        return _moved(state, moved, points)

    def covariance(self, tracks: Tracks, state: State) -> Float[np.ndarray, "c c"]:
        """Of the camera parameters, for observations of unit scatter; the unit of length is fixed."""
        size = len(self.prior_side)
        matrix, *_ = reduced_equations(
            tracks.first, self.place, self.by_camera, self.by_point, self.residual, self.weight, 0.0, size
        )
        matrix += self.prior_matrix
        # What changes the unit moves every centre away from the first: t changes by -R (c - c0) for each.
        away = np.zeros(size)
        views = len(state.rotations)
        shift = -np.einsum("vij,vj->vi", state.rotations, state.centers - state.centers[:1])
        away[: 6 * views].reshape(views, 6)[:, 3:] = shift
        away /= max(np.linalg.norm(away), 1e-300)
        firm = np.abs(np.diagonal(matrix)).max()
        part = np.ix_(self.free, self.free)
        covariance = np.zeros((size, size))
        held = matrix[part] + firm * np.outer(away, away)[part]
        covariance[part] = np.linalg.pinv(held, hermitian=True)
        return covariance


def _slopes(lenses: Lenses, tracks: Tracks, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of pixels by the point in the camera's frame, and by log focal length and distortion."""
    lens = lenses.of_view[tracks.view]
    focal, bend = lenses.focal[lens], lenses.distortion[lens]
    z = np.maximum(local[:, 2], _BEHIND)
    flat = local[:, :2] / z[:, None]
    squared = np.square(flat).sum(1)
    by_flat = (1 + bend * squared)[:, None, None] * np.eye(2)
    by_flat = by_flat + 2 * bend[:, None, None] * flat[:, :, None] * flat[:, None, :]
    flat_by_local = np.zeros((len(z), 2, 3))
    flat_by_local[:, 0, 0] = flat_by_local[:, 1, 1] = 1 / z
    flat_by_local[:, :, 2] = -flat / z[:, None]
    by_local = focal[:, None, None] * by_flat @ flat_by_local
    by_focal = (focal * (1 + bend * squared))[:, None] * flat
    by_bend = (focal * squared)[:, None] * flat
    return by_local, np.stack([by_focal, by_bend], 2)


def _cross(vectors: np.ndarray) -> np.ndarray:
    """Matrices [v]x with [v]x w = v x w."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)


def _rotation(turns: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = np.linalg.norm(turns, axis=1)[:, None, None]
    k = _cross(turns / np.maximum(angle[:, 0], 1e-300))
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def _moved(state: State, step: np.ndarray, points: np.ndarray) -> State:
    views = len(state.rotations)
    each = step[: 6 * views].reshape(views, 6)
    lens = step[6 * views :].reshape(-1, 2)
    turned = _rotation(each[:, :3]) @ state.rotations
    lenses = replace(
        state.lenses,
        focal=state.lenses.focal * np.exp(np.clip(lens[:, 0], -1, 1)),
        distortion=state.lenses.distortion + lens[:, 1],
    )
    return State(turned, state.translations + each[:, 3:], lenses, state.points + points)


def _extent(state: State) -> float:
    away = np.linalg.norm(state.centers - state.centers[:1], axis=1)
    return float(away.sum())


def _scaled(state: State, unit: float) -> State:
    """The state in a unit in which cameras are as far from the first as they were; the first one stays."""
    extent = _extent(state)
    if not extent > 0 or not unit > 0:
        return state
    center, scale = state.centers[0], unit / extent
    centers = center + scale * (state.centers - center)
    translations = -np.einsum("vij,vj->vi", state.rotations, centers)
    return replace(state, translations=translations, points=center + scale * (state.points - center))
