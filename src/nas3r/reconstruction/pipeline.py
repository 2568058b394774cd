"""`reconstruct`: from photos to cameras, depth and Gaussians."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from nas3r.devices import check_device
from nas3r.gaussians import Gaussians
from nas3r.models import NAS3R, load
from nas3r.reconstruction.dense import densified
from nas3r.reconstruction.estimate import require_fit
from nas3r.reconstruction.finished import FinishedStages
from nas3r.reconstruction.focal_check import against_pictures
from nas3r.reconstruction.focal_lengths import KnownIntrinsics, known_intrinsics
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.judging import judged
from nas3r.reconstruction.locator import Locator
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.placing import Placing
from nas3r.reconstruction.progress import Progress, silent, stage
from nas3r.reconstruction.record import IN_MEMORY, Record
from nas3r.reconstruction.refinement import refined
from nas3r.reconstruction.result import Reconstruction
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.straight import straight_lenses, zoomed
from nas3r.reconstruction.told_cameras import told_cameras
from nas3r.reconstruction.views import FEW_VIEWS, Plan, SizeRule, plan_views, read_views

logger = logging.getLogger(__name__)

Adapt = Callable[[NAS3R, UInt8[Tensor, "n 3 h w"]], tuple[NAS3R, dict[str, Any]]]


def reconstruct(
    images: Sequence[InputLike] | InputLike,
    options: ReconstructOptions | None = None,
    *,
    weights: str | Path | NAS3R | None = None,
    device: torch.device | str | None = None,
    adapt: Adapt | None = None,
    finished: FinishedStages | None = None,
    on_progress: Progress = silent,
) -> Reconstruction:
    """Cameras, depth and Gaussians of a static scene from a few unposed photos or a video.

    Args:
        images: Image files, a folder of images, a video, arrays, tensors or PIL images of one scene.
        options: What can be chosen, e.g. `nas3r.ReconstructOptions(views=4, refine=60)`.
        weights: A weights file, a preset's name (random weights), or a model; by default the weights that
            ship with the package.
        device: Where the network runs; by default CUDA if there is one.
        adapt: Fine-tunes the model on the pictures that are not kept aside, uint8 [n, 3, h, w]; returns the
            model to use and figures for the record (see `nas3r.training.adapt`).
        finished: Stages of whole scenes that an earlier run has finished, and where those of this one are
            kept.
        on_progress: Called with (what, done, total).

    Returns:
        The reconstruction, on the CPU.

    Raises:
        ValueError: If fewer than two different pictures can be used, the camera did not move, or a model
            must be told the focal length and nothing tells it, or there is no such device.
        FileNotFoundError: If a named file does not exist.
    """
    options = options or ReconstructOptions()
    options.check()
    check_device(device)
    finished = finished or FinishedStages()
    seconds: dict[str, float] = {}
    with stage(seconds, "load weights"):
        model = weights if isinstance(weights, NAS3R) else load(weights, device)
    with stage(seconds, "read pictures"):
        size = SizeRule.of(model.config, options)
        plan = plan_views(images, options, size, on_progress=on_progress)
        require_fit(model, at_once(plan), *plan.working, factor=plan.factor, photo=plan.largest_photo)
        views = read_views(plan, clip=adapt is not None, on_progress=on_progress)
    name = IN_MEMORY if isinstance(weights, NAS3R) else weights and str(weights)
    record = Record(weights=name, seconds=seconds, notes=list(views.warnings))
    if adapt is not None and views.clip is not None:
        with stage(seconds, "adapt"):
            model, gained = adapt(model, views.clip)
        record = replace(record, weights=IN_MEMORY, adapted=gained)
    with stage(seconds, "network"):
        known = known_intrinsics(
            model, [*views.context, *views.held_out], options.focal_35mm, ignore_exif=options.ignore_exif
        )
        known = against_pictures(model, views.context[:FEW_VIEWS], views.context_images[:FEW_VIEWS], known)
    told = None
    if options.cameras is not None:
        told = told_cameras(
            options.cameras, [*views.context, *views.held_out], as_start=options.cameras_prior
        )
        known = KnownIntrinsics(told.cameras.intrinsics, "given", known.notes, ~told.told)
    record = replace(record, focal=known.origin, notes=[*record.notes, *known.notes])
    placing = Placing(model, plan, told, options.part, finished, seconds, on_progress)
    found = placing.run(views, known)
    if found.outcome is not None and found.outcome.bends:
        record = replace(record, notes=[*record.notes, _STRAIGHTENED.format(_largest(found.outcome.bends))])
        lenses = straight_lenses(
            [*views.context, *views.held_out],
            found.views.context,
            found.prediction.cameras,
            found.outcome.bends,
        )
        with stage(seconds, "read pictures"):
            views = read_views(plan, lenses=lenses, on_progress=on_progress)
        found = placing.run(views, zoomed(known, lenses), straight=True)
    record = replace(record, notes=[*record.notes, *found.notes])
    prediction, views = found.prediction, found.views
    outcome = found.outcome
    if outcome is not None:
        record = replace(record, adjusted=outcome.summary, notes=[*record.notes, *outcome.notes])
    kept = _finite(prediction.gaussians)
    if options.surface_only:
        kept &= prediction.owners >= 0
    scene = Scene(
        cameras=prediction.cameras,
        depth=prediction.depth[0],
        gaussians=prediction.gaussians.select(kept),
        images=views.context_images,
        views=views.context,
        held_out=found.held_out,
        record=record,
        unreadable=views.unreadable,
        network_cameras=found.network_cameras,
        network_size=(views.images.shape[-1], views.images.shape[-2]),
        sparse=outcome and outcome.sparse,
        landmarks=outcome and outcome.landmarks,
    )
    if scene.landmarks is not None:
        behind = scene.gaussians.select(prediction.owners[kept] < 0)
        with stage(seconds, "dense depth and Gaussians"):
            scene = densified(scene, views.full, behind, options, finished, on_progress=on_progress)
    elif options.refines:
        owners = prediction.owners[kept]
        side = model.config.patch_size if (owners < 0).any() else None
        with stage(seconds, "refine"):
            scene = refined(scene, owners, views.larger, options, backdrop_side=side, on_progress=on_progress)
    with stage(seconds, "check"):
        scene = replace(scene, record=judged(scene))
    return Reconstruction.of(scene, Locator(model))


def at_once(plan: Plan) -> int:
    """How many of the chosen views the network sees at once."""
    return len(plan.context) if not plan.full_factor else min(len(plan.context), FEW_VIEWS)


def _finite(gaussians: Gaussians) -> Bool[Tensor, "n"]:
    """Not the Gaussians that overflowed; viewers and renderers stumble over them."""
    values = [getattr(gaussians, name)[0].flatten(1 if name != "opacities" else 0) for name in _FIELDS]
    good = torch.stack([v.isfinite() if v.ndim == 1 else v.isfinite().all(1) for v in values]).all(0)
    if len(good) and not good.any():
        raise ValueError("the network's output is not finite: the weights are damaged")
    if not good.all():
        logger.warning("%d of %d Gaussians are not finite and were dropped", int((~good).sum()), len(good))
    return good


def _largest(bends: Sequence[float]) -> float:
    return max(bends, key=abs)


_STRAIGHTENED = (
    "the lens bends straight lines (k1 = {:+.3f}): the pictures were straightened, those in images/ too"
)
_FIELDS = ("means", "quats", "scales", "opacities", "sh")
