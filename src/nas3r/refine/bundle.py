"""`refine`: test-time photometric bundle adjustment of one scene."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.refine.alignment import Alignment, DepthGrid, align, camera_groups, prediction_error
from nas3r.refine.anchored import anchor, nearest_views
from nas3r.refine.budget import Budget, decay
from nas3r.refine.fitted_views import FittedViews, ViewOrder
from nas3r.refine.free import FreeGaussians
from nas3r.refine.locate import locate_views, scene_unit
from nas3r.refine.photometric import photometric_error, views_psnr
from nas3r.refine.result import Measurement, RefineResult
from nas3r.refine.rig import Rig
from nas3r.refine.settings import RefineSettings
from nas3r.render import render

logger = logging.getLogger(__name__)

DEFAULT_STEPS = 400
LOCATE_STEPS = 12  # at each image scale
AGAIN_STEPS = 4  # where the cameras nearly are already
_FIRST_RESERVE = 0.4  # a third of the steps at one scale of three, the finest, and two measurements of three
EARLY = 1.5  # exponent of the times of measurements: the first steps of the free stage change most


@torch.enable_grad()
def refine(
    gaussians: Gaussians,
    cameras: Cameras,
    images: Float[Tensor, "v 3 h w"],
    *,
    held_out: list[int] | None = None,
    anchors: Int[Tensor, "n"] | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    settings: RefineSettings | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> RefineResult:
    """Improves Gaussians, poses and focal length of one scene so that it renders its photos better.

    First cameras, focal length and large-scale depth are aligned, coarse to fine, with the Gaussians riding
    on their cameras; then Gaussians and cameras are optimised freely, or, where that costs the held-out
    views, only colours. Held-out views never teach: they are located against the scene as it is (pose only)
    and measured. Of the states seen that are no worse on them than the start, the one of most merit is
    returned.

    Without held-out views the best state is the one with the best PSNR on the views it learned from, which
    says nothing about new views.

    Args:
        gaussians: One scene (batch of one).
        cameras: Of all views, [1, v, ...].
        images: What they saw, in [0, 1].
        held_out: Views that only measure. They must not have been used to make the Gaussians.
        anchors: The view each Gaussian was made from [n], -1 if none; by default the nearest training view
            that sees it.
        seconds: Time limit, measurements included; at least one measurement is always made.
        steps: Limit of optimisation steps; by default 400 if there is no time limit.
        settings: Everything else.
        on_progress: Called with the fraction done after each step.

    Raises:
        ValueError: If shapes or view numbers do not fit together, or a Gaussian is anchored to a held-out
            view, whose pixels it would carry into the measurement.
    """
    settings = settings or RefineSettings()
    views = FittedViews(images, list(held_out or []))
    _check(gaussians, cameras, views, anchors)
    if steps is None and seconds is None:
        steps = DEFAULT_STEPS
    budget = Budget(steps=steps, seconds=seconds, on_progress=on_progress)
    refinement = _Refinement(views, settings, budget)
    return refinement.run(gaussians.detach(), cameras.detach(), anchors)


def _check(gaussians: Gaussians, cameras: Cameras, views: FittedViews, anchors: Tensor | None) -> None:
    count = len(views.images)
    if gaussians.means.shape[0] != 1 or gaussians.num_gaussians == 0:
        raise ValueError(
            f"gaussians: expected one scene of at least one Gaussian, got {list(gaussians.means.shape[:2])}"
        )
    if cameras.world_from_camera.shape[:2] != (1, count):
        raise ValueError(
            f"cameras: expected shape [1, {count}, ...] for {count} images, got "
            f"{list(cameras.world_from_camera.shape)}"
        )
    if anchors is None:
        return
    if anchors.shape != (gaussians.num_gaussians,) or anchors.min() < -1 or anchors.max() >= count:
        raise ValueError(f"anchors: expected {gaussians.num_gaussians} views in -1..{count - 1}")
    leaking = sorted(set(anchors.unique().tolist()) & set(views.held_out))
    if leaking:
        raise ValueError(f"anchors: the held-out views {leaking} have Gaussians made from their own pixels")


class _Refinement:
    """One run: the best state so far and how it was found."""

    best: Measurement
    gaussians: Gaussians
    cameras: Cameras

    def __init__(self, views: FittedViews, settings: RefineSettings, budget: Budget) -> None:
        self.views, self.settings, self.budget = views, settings, budget
        self.history: list[Measurement] = []
        self._floor = -math.inf

    def run(self, gaussians: Gaussians, cameras: Cameras, anchors: Tensor | None) -> RefineResult:
        start = self._measure("start", gaussians, cameras)
        located = start
        if self.views.held_out and self.settings.poses:
            located = self._measure("located", gaussians, self._locate(gaussians, cameras))
        # What follows the last step is one measurement, after a few steps of locating. It is timed once it
        # has been made; before, it is a part of what this took.
        self.budget.reserve = _FIRST_RESERVE * self.budget.seconds
        self._align(anchors)
        self._free()
        if self.history[-1].score < self._floor and self.budget.progress < 1:
            self._free(colors_only=True)
        return RefineResult(
            self.gaussians, self.cameras, start, located, self.best, self.history, self.views.held_out
        )

    def _locate(self, gaussians: Gaussians, cameras: Cameras, *, again: bool = False) -> Cameras:
        """The cameras with the held-out ones aligned with the scene; `again` if they nearly are already."""
        held_out, settings = self.views.held_out, self.settings
        if not held_out or not settings.poses:
            return cameras
        found = locate_views(
            gaussians,
            cameras.views(held_out),
            self.views.images[held_out],
            levels=settings.levels[-1:] if again else settings.levels,
            steps=AGAIN_STEPS if again else LOCATE_STEPS,
            rate=settings.locate_rate * (0.3 if again else 1.0),
            ssim_weight=settings.ssim_weight,
        )
        poses = cameras.world_from_camera.clone()
        poses[:, held_out] = found.world_from_camera
        return replace(cameras, world_from_camera=poses)

    def _measure(self, stage: str, gaussians: Gaussians, cameras: Cameras) -> Measurement:
        """Measures a state and keeps it if it is the best."""
        views, images = self.views, self.views.images
        held_out = None
        if views.held_out:
            held_out = views_psnr(gaussians, cameras.views(views.held_out), images[views.held_out])
        measurement = Measurement(
            stage,
            self.budget.steps,
            self.budget.seconds,
            gaussians.num_gaussians,
            views_psnr(gaussians, cameras.views(views.train), images[views.train]),
            held_out,
        )
        self.history.append(measurement)
        logger.debug("%s", measurement)
        if len(self.history) == 1:
            self._keep(measurement, gaussians, cameras)
        if stage in ("start", "located"):
            self._floor = max(self._floor, measurement.score)
        if measurement.score >= self._floor and measurement.merit > self.best.merit:
            self._keep(measurement, gaussians, cameras)
        return measurement

    def _keep(self, measurement: Measurement, gaussians: Gaussians, cameras: Cameras) -> None:
        self.best, self.gaussians, self.cameras = measurement, gaussians, cameras

    def _align(self, anchors: Tensor | None) -> None:
        """Cameras, focal length and large-scale depth, coarse to fine."""
        views, settings = self.views, self.settings
        if anchors is None:
            anchors = nearest_views(self.gaussians, self.cameras, views.train)
        tied = anchors >= 0
        if len(views.train) < 2 or not tied.any():
            return
        start = self.gaussians
        anchored = anchor(start.select(tied), self.cameras, anchors[tied])
        rig = self._rig()
        state = Alignment(anchored, rig, DepthGrid(len(views.images), settings.depth_grid, start.means))
        error = prediction_error(state, views, settings)
        for number, level in enumerate(settings.levels, 1):
            end = settings.alignment_share * number / len(settings.levels)
            if self.budget.progress >= end:
                continue
            align(state, views, level, self.budget, end, settings)
            with torch.no_grad():
                cameras = rig.cameras()
                gaussians = _put(start, tied, state.gaussians(cameras))
            cameras = self._locate(gaussians, cameras)
            rig.place(views.held_out, cameras)
            aligned = self._measure("alignment", gaussians, cameras)
            # A view that explains itself can look better before alignment than after. Without held-out views,
            # what counts is therefore how well the views predict each other.
            if not views.held_out and (now := prediction_error(state, views, settings)) < error:
                error = now
                self._keep(aligned, gaussians, cameras)

    def _free(self, *, colors_only: bool = False) -> None:
        """Every Gaussian and camera, at full size, until nothing more is gained.

        Views of a poor start contradict each other. Free shapes settle that by shrinking and fading until
        each view is explained by Gaussians of its own, which costs other views; colours alone settle it by
        averaging. They are the second attempt.
        """
        begin = self.budget.progress
        if begin >= 1:
            return
        settings, views = self.settings, self.views
        rig = self._rig()
        free = FreeGaussians(self.gaussians, self.cameras)
        groups = free.parameter_groups(settings, colors_only=colors_only)
        if not colors_only:
            groups += camera_groups(rig, settings, 0.3)
        optimiser = torch.optim.Adam(groups)
        rates = [group["lr"] for group in optimiser.param_groups]
        order = ViewOrder(views.train, settings.seed)
        last_gain, highest = 0, -math.inf
        for number in range(1, settings.evaluations + 1):
            share = (number / settings.evaluations) ** EARLY
            before = self.budget.steps
            for _ in self.budget.until(begin + (1 - begin) * share):
                fraction = (self.budget.progress - begin) / (1 - begin)
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * decay(fraction)
                self._free_step(free, rig, optimiser, order.next(settings.views_per_step))
            if self.budget.steps == before:  # measuring took the time of this part: there is nothing new
                continue
            closing = self.budget.seconds
            free.prune(settings.prune_opacity, optimiser)
            with torch.no_grad():
                gaussians, cameras = free(), rig.cameras()
            cameras = self._locate(gaussians, cameras, again=True)
            rig.place(views.held_out, cameras)
            merit = self._measure("colors" if colors_only else "free", gaussians, cameras).merit
            self.budget.reserve = self.budget.seconds - closing
            if merit > highest + settings.min_gain:
                last_gain, highest = number, merit
            if number - last_gain >= settings.patience or self.budget.progress >= 1:
                return

    def _free_step(
        self, free: FreeGaussians, rig: Rig, optimiser: torch.optim.Adam, batch: list[int]
    ) -> None:
        photos = self.views.images[batch]
        rendering = render(free(), rig.cameras().views(batch), photos.shape[-2], photos.shape[-1])
        loss = photometric_error(rendering.color[0], photos, self.settings.ssim_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def _rig(self) -> Rig:
        """The cameras of the best state, free to move."""
        unit = scene_unit(self.gaussians, self.cameras)
        return Rig(
            self.cameras,
            unit=unit,
            fixed=self.views.train[0],
            focal_per_view=self.settings.focal == "per_view",
        )


def _put(gaussians: Gaussians, where: Tensor, values: Gaussians) -> Gaussians:
    """The Gaussians with those at the mask `where` replaced, in order."""

    def put(name: str) -> Tensor:
        out = getattr(gaussians, name).clone()
        out[:, where] = getattr(values, name)
        return out

    return Gaussians(*(put(name) for name in Gaussians.__dataclass_fields__))
