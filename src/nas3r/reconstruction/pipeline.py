"""`reconstruct`: from photos to cameras, depth and Gaussians."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nas3r.adjustment import Landmarks
from nas3r.devices import check_device
from nas3r.gaussians import Gaussians
from nas3r.models import NAS3R, Prediction, infer, load
from nas3r.models.inference import compared
from nas3r.reconstruction.adjusting import adjusted, located
from nas3r.reconstruction.dense import densified
from nas3r.reconstruction.estimate import require_fit
from nas3r.reconstruction.focal_check import against_pictures
from nas3r.reconstruction.focal_lengths import known_intrinsics
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.judging import judged
from nas3r.reconstruction.locator import Locator
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.record import IN_MEMORY, Record
from nas3r.reconstruction.refinement import refined
from nas3r.reconstruction.result import Reconstruction
from nas3r.reconstruction.scene import HeldOut, Scene
from nas3r.reconstruction.views import ChosenViews, SizeRule, plan_views, read_views

logger = logging.getLogger(__name__)

Adapt = Callable[[NAS3R, UInt8[Tensor, "n 3 h w"]], tuple[NAS3R, dict[str, Any]]]


def reconstruct(
    images: Sequence[InputLike] | InputLike,
    options: ReconstructOptions | None = None,
    *,
    weights: str | Path | NAS3R | None = None,
    device: torch.device | str | None = None,
    adapt: Adapt | None = None,
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
    seconds: dict[str, float] = {}
    with _stage(seconds, "load weights"):
        model = weights if isinstance(weights, NAS3R) else load(weights, device)
    with _stage(seconds, "read pictures"):
        size = SizeRule.of(model.config, options)
        plan = plan_views(images, options, size, on_progress=on_progress)
        require_fit(model, len(plan.context), *plan.working, factor=plan.factor, photo=plan.largest_photo)
        views = read_views(plan, clip=adapt is not None, on_progress=on_progress)
    name = IN_MEMORY if isinstance(weights, NAS3R) else weights and str(weights)
    record = Record(weights=name, seconds=seconds, notes=list(views.warnings))
    if adapt is not None and views.clip is not None:
        with _stage(seconds, "adapt"):
            model, gained = adapt(model, views.clip)
        record = replace(record, weights=IN_MEMORY, adapted=gained)
    with _stage(seconds, "network"):
        known = known_intrinsics(
            model, [*views.context, *views.held_out], options.focal_35mm, ignore_exif=options.ignore_exif
        )
        known = against_pictures(model, views.context, views.context_images, known)
        predicted, held_out = _predict(model, views, known.matrices)
    record = replace(record, focal=known.origin, notes=[*record.notes, *known.notes])
    prediction, sparse, landmarks = predicted.prediction, None, None
    if views.full:
        with _stage(seconds, "adjust cameras"):
            outcome = adjusted(predicted.uncompared, views.context, views.full[: len(views.context)], known)
            record = replace(record, adjusted=outcome.summary, notes=[*record.notes, *outcome.notes])
            sparse, landmarks = outcome.sparse, outcome.landmarks
            if landmarks is not None:
                prediction = outcome.prediction
                if model.config.compare_views:
                    prediction = compared(prediction, views.context_images[None])
                held_out = held_out and _located(held_out, landmarks, views, predicted.prediction, prediction)
    kept = _finite(prediction.gaussians)
    if options.surface_only:
        kept &= prediction.owners >= 0
    scene = Scene(
        cameras=prediction.cameras,
        depth=prediction.depth[0],
        gaussians=prediction.gaussians.select(kept),
        images=views.context_images,
        views=views.context,
        held_out=held_out,
        record=record,
        unreadable=views.unreadable,
        network_cameras=predicted.prediction.cameras,
        network_size=(views.images.shape[-1], views.images.shape[-2]),
        sparse=sparse,
        landmarks=landmarks,
    )
    if options.quality == "best" and landmarks is not None and not options.refines:
        behind = scene.gaussians.select(prediction.owners[kept] < 0)
        with _stage(seconds, "dense depth and Gaussians"):
            scene = densified(scene, views.full, behind, options.max_gaussians)
    if options.refines:
        owners = prediction.owners[kept]
        side = model.config.patch_size if (owners < 0).any() else None
        with _stage(seconds, "refine"):
            scene = refined(scene, owners, views.larger, options, backdrop_side=side, on_progress=on_progress)
    with _stage(seconds, "check"):
        scene = replace(scene, record=judged(scene))
    return Reconstruction.of(scene, Locator(model))


@contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True)
class _Predicted:
    """What a network says, before views were compared and after it; on the CPU."""

    uncompared: Prediction
    prediction: Prediction


@torch.no_grad()
def _predict(
    model: NAS3R, views: ChosenViews, given: Float[Tensor, "1 v 3 3"] | None
) -> tuple[_Predicted, HeldOut | None]:
    device = next(model.parameters()).device
    count = len(views.context)
    inferred = infer(
        model, views.context_images[None].to(device), None if given is None else given[:, :count].to(device)
    )
    predicted = _Predicted(inferred.uncompared.to("cpu"), inferred.prediction.to("cpu"))
    if not views.held_out or not model.config.masked:
        return predicted, None
    images = views.held_out_images
    cameras = inferred.locate(images[None].to(device), None if given is None else given[:, count:].to(device))
    return predicted, HeldOut(views.held_out, images, cameras.to("cpu"))


def _located(
    held_out: HeldOut, landmarks: Landmarks, views: ChosenViews, before: Prediction, after: Prediction
) -> HeldOut:
    """The views kept aside, among the points that cameras were adjusted to."""
    images = views.full[len(views.context) :]
    return replace(
        held_out, cameras=located(landmarks, images, held_out.cameras, before.cameras, after.cameras)
    )


def _finite(gaussians: Gaussians) -> Bool[Tensor, "n"]:
    """Not the Gaussians that overflowed; viewers and renderers stumble over them."""
    values = [getattr(gaussians, name)[0].flatten(1 if name != "opacities" else 0) for name in _FIELDS]
    good = torch.stack([v.isfinite() if v.ndim == 1 else v.isfinite().all(1) for v in values]).all(0)
    if not good.any():
        raise ValueError("the network's output is not finite: the weights are damaged")
    if not good.all():
        logger.warning("%d of %d Gaussians are not finite and were dropped", int((~good).sum()), len(good))
    return good


_FIELDS = ("means", "quats", "scales", "opacities", "sh")
