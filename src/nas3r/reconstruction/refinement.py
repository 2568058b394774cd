"""Fitting a reconstruction to its photos, at a finer size than the network saw."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.io.images import Resize
from nas3r.models.backdrop import backdrop
from nas3r.reconstruction.judging import view_psnr
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.scene import HeldOut, Scene
from nas3r.refine import Measurement, RefineResult, RefineSettings, lift_depth, refine

_COARSE_SHARE = 0.6  # of the time at the network's size: errors of geometry cost more than a lack of detail
# A tenth of the usual rates: the network's cameras are solved for from matches, and good ones drift by
# degrees at rates that suit poor ones, as long as surfaces are not right.
_SETTINGS = RefineSettings(pose_rate=3e-4, focal_rate=3e-4)
_LEAST_SHARE = 0.05  # of the time; with less left, a slow machine does nothing at the larger size
_SQUARE = 2  # pixels a side: a Gaussian for each pixel takes four times as long and hardly shows
_SOLID = 0.5  # alpha above which a rendered depth counts as known


def refined(
    scene: Scene,
    owners: Int[Tensor, "n"],
    larger: Float[Tensor, "v 3 h w"] | None,
    options: ReconstructOptions,
    *,
    backdrop_side: int | None = None,
    on_progress: Progress = silent,
) -> Scene:
    """Fits cameras and Gaussians to all views; views kept aside only measure, and decide what is best.

    First at the size the network saw. If there are larger images, the surfaces are then given Gaussians for
    their pixels and fitted to those, if there is time left; the better of the two at the larger size is kept.

    Args:
        scene: As the network left it.
        owners: The view that each of its Gaussians comes from, or -1.
        larger: The views and those kept aside at a multiple of the working size.
        options: Budgets of time and steps.
        backdrop_side: Of a backdrop's squares at the network's size, if there is to be one.
        on_progress: Called with (what, done, total).
    """
    began = time.monotonic()
    if larger is None:
        return _timed(_fitted(scene, owners, _share(1, options), on_progress)[0], began)
    coarse, outcome = _fitted(scene, owners, _share(_COARSE_SHARE, options), on_progress)
    # A look at the larger size takes about so many times what the first one took.
    look = outcome.start.seconds * larger[0].numel() / scene.images[0].numel()
    if options.refine is not None and options.refine - (time.monotonic() - began) < look:
        return _timed(_without_detail(coarse), began)
    start, owners = enlarged(coarse, larger, backdrop_side)
    measuring = time.monotonic()
    before, after = (_measured(state, start) for state in (scene, coarse))
    budget = _share(1 - _COARSE_SHARE, options)
    if options.refine is not None:
        now = time.monotonic()
        # The last measurement and the depth of the result take what these two took.
        left = options.refine - (now - began) - (now - measuring)
        if left < _before_first_step(outcome, (now - measuring) / 2) + _LEAST_SHARE * options.refine:
            return _timed(_without_detail(coarse), began)
        budget["seconds"] = left
    fine, _ = _fitted(start, owners, budget, on_progress)
    finer = _measured(fine, fine)
    kept = finer.merit > after.merit and finer.score >= min(before.score, after.score)
    best = finer if kept else after
    summary = {
        **(coarse.record.refined or {}),
        "detail_size": list(fine.size),
        "detail_train_psnr": [round(before.train_psnr, 2), round(best.train_psnr, 2)],
        "detail_held_out_psnr": _pair(before.held_out_psnr, best.held_out_psnr),
        "detail_kept": kept,
        "detail_steps": (fine.record.refined or {}).get("steps"),
    }
    chosen = fine if kept else coarse
    return _timed(replace(chosen, record=replace(chosen.record, refined=summary)), began)


def _before_first_step(outcome: RefineResult, measurement: float) -> float:
    """Seconds of refinement at the larger size before its first step: measuring, and locating what tests.

    Args:
        outcome: At the smaller size.
        measurement: Seconds that one takes at the larger size.
    """
    return measurement * max(1.0, outcome.located.seconds / max(outcome.start.seconds, 1e-3))


def _without_detail(scene: Scene) -> Scene:
    """The scene, with the word that there was no time for the larger size."""
    summary = {**(scene.record.refined or {}), "detail_kept": False, "detail_steps": 0}
    return replace(scene, record=replace(scene.record, refined=summary))


def _timed(scene: Scene, began: float) -> Scene:
    """The scene, with how long all of its refinement took."""
    summary = {**(scene.record.refined or {}), "seconds": round(time.monotonic() - began, 1)}
    return replace(scene, record=replace(scene.record, refined=summary))


class _Budget(TypedDict):
    seconds: float | None
    steps: int | None


def _share(share: float, options: ReconstructOptions) -> _Budget:
    return _Budget(
        seconds=None if options.refine is None else share * options.refine,
        steps=None if options.refine_steps is None else max(1, round(share * options.refine_steps)),
    )


def _fitted(
    scene: Scene, owners: Int[Tensor, "n"], budget: _Budget, on_progress: Progress
) -> tuple[Scene, RefineResult]:
    """Refined at the working size, and how."""
    cameras, images, tests = scene.cameras, scene.images, scene.held_out
    count = len(scene.views)
    if tests is not None:
        cameras = Cameras.cat([cameras, tests.cameras])
        images = torch.cat([images, tests.images])
    outcome = refine(
        scene.gaussians,
        cameras,
        images,
        held_out=list(range(count, len(images))),
        anchors=owners,
        settings=_settings(scene),
        **budget,
        on_progress=lambda f: on_progress("refining", round(100 * f), 100),
    )
    better = replace(
        scene,
        cameras=outcome.cameras.views(slice(0, count)),
        gaussians=outcome.gaussians,
        held_out=tests and replace(tests, cameras=outcome.cameras.views(slice(count, len(images)))),
        record=replace(scene.record, refined=_summary(outcome)),
    )
    return replace(better, depth=_rendered_depth(better)), outcome


def _settings(scene: Scene) -> RefineSettings:
    """Cameras that were adjusted to points stay, and so do told focal lengths.

    The photometric error alone asks for wider views.
    """
    if scene.sparse is not None:
        return replace(_SETTINGS, poses=False, focal="fixed")
    return _SETTINGS if scene.record.focal == "predicted" else replace(_SETTINGS, focal="fixed")


def _measured(scene: Scene, larger: Scene) -> Measurement:
    """PSNR in dB of the scene, with its own cameras, at the size of `larger`."""
    width, height = larger.size

    def mean_psnr(own: Scene | HeldOut, images: Tensor) -> float:
        _, cameras = at_size(own.views, own.cameras, width, height)
        return float(np.mean(view_psnr(scene.render(cameras, height, width), images)))

    held_out = None
    if scene.held_out is not None and larger.held_out is not None:
        held_out = mean_psnr(scene.held_out, larger.held_out.images)
    train = mean_psnr(scene, larger.images)
    return Measurement("detail", 0, 0.0, scene.gaussians.num_gaussians, train, held_out)


def enlarged(
    scene: Scene, larger: Float[Tensor, "v 3 h w"], backdrop_side: int | None = None
) -> tuple[Scene, Int[Tensor, "n"]]:
    """The same cameras and surfaces with larger images: one Gaussian for every 2 x 2 of their pixels.

    Args:
        scene: As fitted at the network's size.
        larger: The views, and then those kept aside, at a multiple of that size.
        backdrop_side: Of a backdrop's squares at the network's size, if there is to be one.

    Returns:
        The scene, and the view that each Gaussian comes from; -1 behind the scene.
    """
    height, width = larger.shape[-2:]
    count, tests = len(scene.views), scene.held_out
    images = larger[:count]
    views, cameras = at_size(scene.views, scene.cameras, width, height)
    depth = _resized_depth(scene.depth, height, width)
    squares = (height // _SQUARE, width // _SQUARE)
    gaussians, owners = lift_depth(
        F.interpolate(images, size=squares, mode="area"), _resized_depth(scene.depth, *squares), cameras
    )
    if backdrop_side is not None:
        side = backdrop_side * (width // scene.size[0])
        behind = backdrop(images[None], depth[None], cameras, side, gaussians.sh_degree)
        gaussians = Gaussians.cat([gaussians, behind])
        owners = F.pad(owners, (0, behind.num_gaussians), value=-1)
    if tests is not None:
        test_views, test_cameras = at_size(tests.views, tests.cameras, width, height)
        tests = HeldOut(test_views, larger[count:], test_cameras)
    grown = replace(
        scene, views=views, images=images, cameras=cameras, depth=depth, gaussians=gaussians, held_out=tests
    )
    return grown, owners


def _resized_depth(depth: Float[Tensor, "v h w"], height: int, width: int) -> Float[Tensor, "v h2 w2"]:
    """Bilinear in inverse depth; unknown (0) only where the nearest pixel is."""
    known = (depth > 0).to(depth)[None]
    inverse = torch.where(depth > 0, 1 / depth.clamp_min(1e-12), torch.zeros_like(depth))[None]
    size = (height, width)
    weight = F.interpolate(known, size=size, mode="bilinear")
    value = weight / F.interpolate(inverse, size=size, mode="bilinear").clamp_min(1e-12)
    nearest = F.interpolate(known, size=size, mode="nearest")
    return torch.where(nearest > 0, value, torch.zeros_like(value))[0]


def at_size(views: Sequence[View], cameras: Cameras, width: int, height: int) -> tuple[list[View], Cameras]:
    """Views and cameras at another working size; crops differ by rounding, and intrinsics follow."""
    resized, intrinsics = [], []
    for view, k in zip(views, cameras.intrinsics[0].double().numpy(), strict=True):
        resize = Resize(view.resize.original_width, view.resize.original_height, width, height, exact=True)
        resized.append(replace(view, resize=resize))
        intrinsics.append(resize.apply_intrinsics(view.resize.undo_intrinsics(k)))
    stacked = torch.from_numpy(np.stack(intrinsics)).to(cameras.intrinsics)[None]
    return resized, Cameras(cameras.world_from_camera, stacked)


def _rendered_depth(scene: Scene) -> Float[Tensor, "v h w"]:
    rendering = scene.render()
    return torch.where(rendering.alpha > _SOLID, rendering.depth, torch.zeros_like(rendering.depth))[0]


def _summary(outcome: RefineResult) -> dict[str, Any]:
    # Held-out views are compared with the better of their poses as given and as aligned with the start.
    before = max(outcome.start, outcome.located, key=lambda measured: measured.score)
    best = outcome.best
    return {
        "train_psnr": _pair(outcome.start.train_psnr, best.train_psnr),
        "held_out_psnr": _pair(before.held_out_psnr, best.held_out_psnr),
        "steps": outcome.history[-1].step,
        "seconds": round(outcome.history[-1].seconds, 1),
    }


def _pair(before: float | None, after: float | None) -> list[float] | None:
    return None if before is None or after is None else [round(before, 2), round(after, 2)]
