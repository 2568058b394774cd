"""Depth and Gaussians at the photos' own resolution, once cameras are exact."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.consistency.patch_match import DenseViews, dense_depth
from nas3r.consistency.surfaces import SurfaceConfig, surface_gaussians
from nas3r.gaussians import Gaussians
from nas3r.reconstruction.finished import FinishedStages
from nas3r.reconstruction.inputs import Pixels
from nas3r.reconstruction.judging import view_psnr
from nas3r.reconstruction.options import Quality, ReconstructOptions
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.refinement import at_size
from nas3r.reconstruction.scene import HeldOut, Scene
from nas3r.reconstruction.views import to_tensor
from nas3r.refine.budget import Budget
from nas3r.refine.density import DensityConfig
from nas3r.refine.fitting import FitResult, FitSettings, PhotosAside, SureDepth, fit

_LONGER_SIDE = 720  # pixels of images, at most
_MANY = 24  # views from which best quality, too, looks for depth at half that size
_SMALL = 480  # pixels of the longer side below which it never is
_SEEN_ANEW = 10  # views after which more of them mostly show the same
_GAUSSIANS_A_VIEW = 20_000  # to start with: steps take less time, and fitting finds what lacks
# Confidence of depth that is sure, and the share of sure depth below which cameras are probably wrong.
_SURE, _LEAST_SURE = 0.5, 0.05
# Steps of fitting, and the seconds after which it ends if a machine is slow. A draft has no exact cameras.
FITTING: dict[Quality, tuple[int, float]] = {"standard": (150, 20.0), "best": (1000, 180.0)}
_FITTED_VIEWS: dict[Quality, int] = {"standard": 8, "best": 24}  # that is for so many; more take longer


def shrinking(width: int, height: int) -> int:
    """How many times smaller than the photos, along both sides, the images of this stage are."""
    return max(1, -(-max(width, height) // _LONGER_SIDE))


def depth_at_half(size: tuple[int, int], views: int, options: ReconstructOptions) -> bool:
    """Whether depth is looked for at half of the size (width, height) of the images."""
    whole = options.quality == "best" and views <= _MANY
    return not whole and max(size) >= _SMALL


def fitting_limits(views: int, options: ReconstructOptions) -> tuple[int | None, float | None]:
    """Steps and seconds of fitting, whichever end first; None for no limit. More views take longer."""
    if options.refines:
        return options.refine_steps, options.refine
    steps, seconds = FITTING[options.quality]
    more = max(1.0, views / _FITTED_VIEWS[options.quality])
    return round(steps * more), seconds * more


def densified(
    scene: Scene,
    full: Sequence[Pixels],
    behind: Gaussians,
    options: ReconstructOptions,
    finished: FinishedStages | None = None,
    *,
    on_progress: Progress = silent,
) -> Scene:
    """The scene at the photos' own resolution: depth on which its views agree there, and fitted Gaussians.

    If the scene has Gaussians, they stay if the new ones render the photos kept aside worse at that size
    (without such photos, the views), or if views agree on so little that cameras are probably wrong.

    Args:
        scene: With exact cameras, and depth in their unit.
        full: The photos at full size; the views, then those kept aside.
        behind: Gaussians that stand behind all that the views show.
        options: How many Gaussians, and how long they are fitted.
        finished: Stages that an earlier run has finished, and where those of this one are kept.
        on_progress: Called with (what, done, total).
    """
    start = time.monotonic()
    fine = _enlarged(scene, full)
    finished = finished or FinishedStages()
    dense = finished.of(
        f"dense-{options.quality}-{options.part}", DenseViews, lambda: _depth(scene, fine, options)
    )
    summary: dict[str, Any] = {
        "size": list(fine.size),
        "kept": False,
        "confident": round(float((dense.confidence > _SURE).float().mean()), 3),
        "seconds": {"depth": _since(start)},
    }
    size = fine.images.shape[-2:]
    depth, confidence = (_enlarged_maps(m, (size[0], size[1])) for m in (dense.depth, dense.confidence))
    fine = replace(fine, depth=depth, confidence=confidence)
    if summary["confident"] < _LEAST_SURE and scene.gaussians.num_gaussians:
        note = f"views agree on only {100 * summary['confident']:.0f} % of what they show"
        return _with_own_gaussians(scene, fine, summary, note)
    start = time.monotonic()
    first = min(options.max_gaussians, _GAUSSIANS_A_VIEW * min(len(scene.views), _SEEN_ANEW))
    images = F.interpolate(fine.images, size=dense.depth.shape[-2:], mode="area")
    surface = surface_gaussians(images, fine.cameras, dense, SurfaceConfig(most=first))
    gaussians = Gaussians.cat([surface, _of_degree(behind, surface.sh_degree)])
    summary["seconds"]["merging"] = _since(start)
    outcome = _fitted(fine, gaussians, options, on_progress)
    summary["seconds"]["fitting"] = round(outcome.seconds, 1)
    better = replace(fine, gaussians=outcome.gaussians)
    after = _mean_psnr(better)
    before = _mean_psnr(fine) if scene.gaussians.num_gaussians else -np.inf
    summary |= {
        "kept": after >= before,
        "measured_on": "views" if fine.held_out is None else "photos kept aside",
        "psnr": [round(before, 2) if np.isfinite(before) else None, round(after, 2)],
        "gaussians": outcome.gaussians.num_gaussians,
        "steps": outcome.steps,
    }
    if after < before:
        note = (
            f"those of the photos at full size render {summary['measured_on']} worse "
            f"({after:.1f} dB against {before:.1f} dB)"
        )
        return _with_own_gaussians(scene, fine, summary, note)
    return replace(better, record=replace(scene.record, dense=summary))


def _with_own_gaussians(scene: Scene, fine: Scene, summary: dict[str, Any], reason: str) -> Scene:
    """The scene with dense depth, and the Gaussians it had."""
    notes = [*scene.record.notes, f"Gaussians are the network's: {reason}"]
    return replace(fine, record=replace(scene.record, dense=summary, notes=notes))


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)


def _depth(scene: Scene, fine: Scene, options: ReconstructOptions) -> DenseViews:
    points = seen = None
    if scene.sparse is not None:
        points = torch.from_numpy(scene.sparse.positions).float()
        seen = [torch.from_numpy(scene.sparse.point[scene.sparse.view == i]) for i in range(len(scene.views))]
    return dense_depth(_for_depth(fine, options), fine.cameras, scene.depth, points, seen)


def _for_depth(fine: Scene, options: ReconstructOptions) -> Float[Tensor, "v 3 h w"]:
    """The images, at half of their size where that saves time: Gaussians are fitted as well from there."""
    if not depth_at_half(fine.size, len(fine.views), options):
        return fine.images
    width, height = fine.size
    return F.interpolate(fine.images, size=(height // 2, width // 2), mode="area")


def _fitted(
    scene: Scene, gaussians: Gaussians, options: ReconstructOptions, on_progress: Progress
) -> FitResult:
    """Gaussians fitted to the scene's photos."""
    assert scene.confidence is not None
    steps, seconds = fitting_limits(len(scene.views), options)
    return fit(
        gaussians,
        scene.cameras,
        scene.images,
        Budget(
            steps=steps,
            seconds=seconds,
            on_progress=lambda f: on_progress("fitting Gaussians", round(100 * f), 100),
        ),
        aside=scene.held_out and PhotosAside(scene.held_out.images, scene.held_out.cameras),
        depth=SureDepth(scene.depth, scene.confidence),
        settings=FitSettings(density=DensityConfig(most=options.max_gaussians)),
    )


def _enlarged(scene: Scene, full: Sequence[Pixels]) -> Scene:
    """The same with larger images; depth is still that of the smaller ones."""
    height, width = full[0].shape[:2]
    shrink = shrinking(width, height)
    size = (height // shrink, width // shrink)
    images = torch.stack([_shrunk(to_tensor(image), size) for image in full])
    count, tests = len(scene.views), scene.held_out
    views, cameras = at_size(scene.views, scene.cameras, size[1], size[0])
    if tests is not None:
        test_views, test_cameras = at_size(tests.views, tests.cameras, size[1], size[0])
        tests = HeldOut(test_views, images[count:], test_cameras)
    return replace(scene, views=views, cameras=cameras, images=images[:count], held_out=tests)


def _enlarged_maps(maps: Float[Tensor, "v h w"], size: tuple[int, int]) -> Float[Tensor, "v h2 w2"]:
    return maps if maps.shape[1:] == size else F.interpolate(maps[:, None], size=size, mode="nearest")[:, 0]


def _shrunk(image: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 h2 w2"]:
    return image if image.shape[1:] == size else F.interpolate(image[None], size=size, mode="area")[0]


def _mean_psnr(scene: Scene) -> float:
    """Of the photos kept aside, else of the views."""
    if scene.held_out is None:
        return float(np.mean(view_psnr(scene.render(), scene.images)))
    return float(np.mean(view_psnr(scene.render(scene.held_out.cameras), scene.held_out.images)))


def _of_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    return replace(gaussians, sh=gaussians.sh[:, :, : (degree + 1) ** 2])
