"""Fitting a reconstruction to its photos, at a finer size than the network saw."""

import math
from collections.abc import Callable, Sequence
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
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.result import HeldOut, Reconstruction, view_psnr
from nas3r.reconstruction.views import to_tensor
from nas3r.refine import Measurement, RefineResult, RefineSettings, lift_depth, refine

DEFAULT_DETAIL = 128
_COARSE_SHARE = 0.6  # of the time at the network's size: errors of geometry cost more than a lack of detail
# A tenth of the usual rates: the network's cameras are solved for from matches, and good ones drift by
# degrees at rates that suit poor ones, as long as surfaces are not right.
_SETTINGS = RefineSettings(pose_rate=3e-4, focal_rate=3e-4)
_CELL = 2  # pixels a side: a Gaussian for each pixel takes four times as long and hardly shows
_SOLID = 0.5  # alpha above which a rendered depth counts as known

Progress = Callable[[str, int, int], None]


def refined(
    result: Reconstruction,
    owners: Int[Tensor, "n"],
    seconds: float | None = None,
    *,
    steps: int | None = None,
    detail: int = DEFAULT_DETAIL,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """Fits cameras and Gaussians to all views; views kept aside only measure, and decide what is best.

    First at the size the network saw. If that is much less than `detail`, its surfaces are then given
    Gaussians for the pixels of larger images and fitted to those; the better of the two at the larger size is
    kept.

    Args:
        result: As the network left it.
        owners: The view that each of its Gaussians comes from, or -1.
        seconds: Budget.
        steps: Limit of optimisation steps, beside or instead of the time.
        detail: Side of the square with about as many pixels as the larger images.
        on_progress: Called with (what, done, total).
    """
    factor = round(detail / math.sqrt(math.prod(result.size)))
    if factor < 2:
        return _fitted(result, owners, _share(1, seconds, steps), on_progress)
    coarse = _fitted(result, owners, _share(_COARSE_SHARE, seconds, steps), on_progress)
    cell = result.model.config.patch_size if result.model is not None and (owners < 0).any() else None
    fine = _fitted(*enlarged(coarse, factor, cell), _share(1 - _COARSE_SHARE, seconds, steps), on_progress)
    before, after, finer = (_measured(state, fine) for state in (result, coarse, fine))
    kept = finer.merit > after.merit and finer.score >= min(before.score, after.score)
    best = finer if kept else after
    summary = {
        **(coarse.record.refined or {}),
        "detail_size": list(fine.size),
        "detail_train_psnr": [round(before.train_psnr, 2), round(best.train_psnr, 2)],
        "detail_held_out_psnr": _pair(before.held_out_psnr, best.held_out_psnr),
        "detail_kept": kept,
    }
    chosen = fine if kept else coarse
    return replace(chosen, record=replace(chosen.record, refined=summary))


class _Budget(TypedDict):
    seconds: float | None
    steps: int | None


def _share(share: float, seconds: float | None, steps: int | None) -> _Budget:
    return _Budget(
        seconds=None if seconds is None else share * seconds,
        steps=None if steps is None else max(1, round(share * steps)),
    )


def _fitted(
    result: Reconstruction, owners: Int[Tensor, "n"], budget: _Budget, on_progress: Progress | None
) -> Reconstruction:
    """Refined at the working size."""
    cameras, images, tests = result.cameras, result.images, result.held_out
    count = len(result.views)
    if tests is not None:
        cameras = Cameras.cat([cameras, tests.cameras])
        images = torch.cat([images, tests.images])
    outcome = refine(
        result.gaussians,
        cameras,
        images,
        held_out=list(range(count, len(images))),
        anchors=owners,
        # Told focal lengths stay: the photometric error alone asks for wider views.
        settings=_SETTINGS if result.record.focal == "predicted" else replace(_SETTINGS, focal="fixed"),
        **budget,
        on_progress=None if on_progress is None else lambda f: on_progress("refining", round(100 * f), 100),
    )
    better = replace(
        result,
        cameras=outcome.cameras.views(slice(0, count)),
        gaussians=outcome.gaussians,
        held_out=tests and replace(tests, cameras=outcome.cameras.views(slice(count, len(images)))),
        record=replace(result.record, refined=_summary(outcome)),
    )
    return replace(better, depth=_rendered_depth(better))


def _measured(result: Reconstruction, larger: Reconstruction) -> Measurement:
    """PSNR in dB of the scene, with its own cameras, at the size of `larger`."""
    width, height = larger.size

    def mean_psnr(own: Reconstruction | HeldOut, images: Tensor) -> float:
        _, _, cameras = _at_size(own.views, own.cameras, width, height)
        return float(np.mean(view_psnr(result.render(cameras, height, width), images)))

    held_out = None
    if result.held_out is not None and larger.held_out is not None:
        held_out = mean_psnr(result.held_out, larger.held_out.images)
    train = mean_psnr(result, larger.images)
    return Measurement("detail", 0, 0.0, result.gaussians.num_gaussians, train, held_out)


def enlarged(
    result: Reconstruction, factor: int, backdrop_cell: int | None = None
) -> tuple[Reconstruction, Int[Tensor, "n"]]:
    """The same cameras and surfaces with larger images: one Gaussian for every 2 x 2 of their pixels.

    Args:
        result: As fitted at the network's size.
        factor: By which both sides of the working size grow.
        backdrop_cell: Side of a backdrop's cells at the network's size, if there is to be one.

    Returns:
        The reconstruction, and the view that each Gaussian comes from; -1 behind the scene.
    """
    width, height = (side * factor for side in result.size)
    views, images, cameras = _at_size(result.views, result.cameras, width, height)
    depth = _resized_depth(result.depth, height, width)
    cells = (height // _CELL, width // _CELL)
    gaussians, owners = lift_depth(
        F.interpolate(images, size=cells, mode="area"), _resized_depth(result.depth, *cells), cameras
    )
    if backdrop_cell is not None:
        behind = backdrop(images[None], depth[None], cameras, backdrop_cell * factor, gaussians.sh_degree)
        gaussians = Gaussians.cat([gaussians, behind])
        owners = F.pad(owners, (0, behind.num_gaussians), value=-1)
    tests = result.held_out
    if tests is not None:
        tests = HeldOut(*_at_size(tests.views, tests.cameras, width, height))
    larger = replace(
        result, views=views, images=images, cameras=cameras, depth=depth, gaussians=gaussians, held_out=tests
    )
    return larger, owners


def _resized_depth(depth: Float[Tensor, "v h w"], height: int, width: int) -> Float[Tensor, "v h2 w2"]:
    """Bilinear in inverse depth; unknown (0) only where the nearest pixel is."""
    known = (depth > 0).to(depth)[None]
    inverse = torch.where(depth > 0, 1 / depth.clamp_min(1e-12), torch.zeros_like(depth))[None]
    size = (height, width)
    weight = F.interpolate(known, size=size, mode="bilinear")
    value = weight / F.interpolate(inverse, size=size, mode="bilinear").clamp_min(1e-12)
    nearest = F.interpolate(known, size=size, mode="nearest")
    return torch.where(nearest > 0, value, torch.zeros_like(value))[0]


def _at_size(
    views: Sequence[View], cameras: Cameras, width: int, height: int
) -> tuple[list[View], Float[Tensor, "v 3 h w"], Cameras]:
    """Views, images and cameras at another working size; crops differ by rounding, and intrinsics follow."""
    resized, images, intrinsics = [], [], []
    for view, k in zip(views, cameras.intrinsics[0].double().numpy(), strict=True):
        resize = Resize(view.resize.original_width, view.resize.original_height, width, height)
        resized.append(replace(view, resize=resize))
        images.append(to_tensor(resize.apply(view.load())))
        intrinsics.append(resize.apply_intrinsics(view.resize.undo_intrinsics(k)))
    stacked = torch.from_numpy(np.stack(intrinsics)).to(cameras.intrinsics)[None]
    return resized, torch.stack(images), Cameras(cameras.world_from_camera, stacked)


def _rendered_depth(result: Reconstruction) -> Float[Tensor, "v h w"]:
    rendering = result.render()
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
