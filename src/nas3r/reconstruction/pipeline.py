"""`reconstruct`: from photos to cameras, depth and Gaussians."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nas3r.adjustment import NotAdjustableError
from nas3r.devices import check_device
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.models import NAS3R, Prediction, infer, load
from nas3r.models.inference import compared
from nas3r.reconstruction.adjusting import Adjusted, adjusted, among, located
from nas3r.reconstruction.dense import densified
from nas3r.reconstruction.estimate import require_fit
from nas3r.reconstruction.finished import FinishedStages
from nas3r.reconstruction.focal_check import against_pictures
from nas3r.reconstruction.focal_lengths import KnownIntrinsics, known_intrinsics
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.judging import judged
from nas3r.reconstruction.lens_groups import intrinsics_of_others
from nas3r.reconstruction.locator import Locator
from nas3r.reconstruction.motion import measure_motion
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.record import IN_MEMORY, Record
from nas3r.reconstruction.refinement import refined
from nas3r.reconstruction.result import Reconstruction
from nas3r.reconstruction.scene import HeldOut, Scene
from nas3r.reconstruction.selection import select
from nas3r.reconstruction.told_cameras import ToldCameras, told_cameras
from nas3r.reconstruction.views import FEW_VIEWS, ChosenViews, Plan, SizeRule, plan_views, read_views
from nas3r.reconstruction.whole import whole_scene

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
    with _stage(seconds, "load weights"):
        model = weights if isinstance(weights, NAS3R) else load(weights, device)
    with _stage(seconds, "read pictures"):
        size = SizeRule.of(model.config, options)
        plan = plan_views(images, options, size, on_progress=on_progress)
        require_fit(model, at_once(plan), *plan.working, factor=plan.factor, photo=plan.largest_photo)
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
        known = against_pictures(model, views.context[:FEW_VIEWS], views.context_images[:FEW_VIEWS], known)
    told = None
    if options.cameras is not None:
        told = told_cameras(
            options.cameras, [*views.context, *views.held_out], as_start=options.cameras_prior
        )
        known = KnownIntrinsics(told.cameras.intrinsics, "given", known.notes, ~told.told)
    record = replace(record, focal=known.origin, notes=[*record.notes, *known.notes])
    found = None
    if told is not None or (len(views.context) > FEW_VIEWS and views.full):
        with _stage(seconds, "tie pictures together"):
            found = _from_many(model, views, known, told, options.part, finished, on_progress)
        if found is None:
            some = _few_of(plan)
            views, known = views.keep(some, []), known.of(some)
            record = replace(record, notes=[*record.notes, _FEW_ONLY.format(len(views.context))])
    if found is None and options.part > 1:
        raise ValueError(f"part: these {len(views.context)} pictures make one part, got {options.part}")
    found = found or _from_few(model, views, known, seconds)
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
        with _stage(seconds, "dense depth and Gaussians"):
            scene = densified(scene, views.full, behind, options, finished, on_progress=on_progress)
    elif options.refines:
        owners = prediction.owners[kept]
        side = model.config.patch_size if (owners < 0).any() else None
        with _stage(seconds, "refine"):
            scene = refined(scene, owners, views.larger, options, backdrop_side=side, on_progress=on_progress)
    with _stage(seconds, "check"):
        scene = replace(scene, record=judged(scene))
    return Reconstruction.of(scene, Locator(model))


def at_once(plan: Plan) -> int:
    """How many of the chosen views the network sees at once."""
    return len(plan.context) if not plan.full_factor else min(len(plan.context), FEW_VIEWS)


@contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 3)


@dataclass(frozen=True)
class _Found:
    """Cameras, depth and Gaussians, on the CPU, of the views that have a place.

    Attributes:
        views: Those.
        prediction: Of them.
        network_cameras: What the network said of all of them at once; None if it never saw all at once.
        held_out: Views kept aside, with cameras.
        outcome: Of adjusting cameras; None if that was not asked for.
    """

    views: ChosenViews
    prediction: Prediction
    network_cameras: Cameras | None
    held_out: HeldOut | None
    outcome: Adjusted | None = None


def _from_many(
    model: NAS3R,
    views: ChosenViews,
    known: KnownIntrinsics,
    told: ToldCameras | None,
    part: int,
    finished: FinishedStages,
    on_progress: Progress,
) -> _Found | None:
    """All views that can be tied together; None if hardly any can.

    Raises:
        ValueError: If cameras are told that the pictures do not agree with.
    """
    count = len(views.context)
    try:
        full = views.full[:count]
        whole = whole_scene(
            model, views.context, views.context_images, full, known, told, finished, part, on_progress
        )
    except NotAdjustableError as error:
        if told is not None:
            raise ValueError(f"known cameras do not fit the pictures: {error}") from error
        return None
    if told is None and part == 1 and len(whole.views) < _FEWEST:
        return None
    outcome = whole.outcome
    assert outcome.landmarks is not None
    used = [views.context[i] for i in whole.views]
    others = known.of(range(count, count + len(views.held_out)))
    own = intrinsics_of_others(views.held_out, others, used, outcome.prediction.cameras)
    places, cameras = among(outcome.landmarks, views.full[count:], own)
    views = views.keep(whole.views, places)
    held_out = None if cameras is None else HeldOut(views.held_out, views.held_out_images, cameras)
    return _Found(views, outcome.prediction, None, held_out, outcome)


def _from_few(model: NAS3R, views: ChosenViews, known: KnownIntrinsics, seconds: dict[str, float]) -> _Found:
    """Views that the network sees at once."""
    with _stage(seconds, "network"):
        predicted, held_out = _predict(model, views, known.matrices)
    cameras = predicted.prediction.cameras
    if not views.full:
        return _Found(views, predicted.prediction, cameras, held_out)
    with _stage(seconds, "adjust cameras"):
        outcome = adjusted(predicted.uncompared, views.context, views.full[: len(views.context)], known)
        if outcome.landmarks is None:
            return _Found(views, predicted.prediction, cameras, held_out, outcome)
        prediction = outcome.prediction
        if model.config.compare_views:
            prediction = compared(prediction, views.context_images[None])
        if held_out is not None:
            images = views.full[len(views.context) :]
            moved = located(outcome.landmarks, images, held_out.cameras, cameras, prediction.cameras)
            held_out = replace(held_out, cameras=moved)
    return _Found(views, prediction, cameras, held_out, outcome)


def _few_of(plan: Plan) -> list[int]:
    """A stretch of the chosen views that the network can see at once."""
    pictures = plan.context
    motions = [measure_motion(a.thumbnail, b.thumbnail) for a, b in pairwise(pictures)]
    sharp = np.array([picture.sharpness for picture in pictures])
    return select(motions, sharp, FEW_VIEWS, 0).views


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


def _finite(gaussians: Gaussians) -> Bool[Tensor, "n"]:
    """Not the Gaussians that overflowed; viewers and renderers stumble over them."""
    values = [getattr(gaussians, name)[0].flatten(1 if name != "opacities" else 0) for name in _FIELDS]
    good = torch.stack([v.isfinite() if v.ndim == 1 else v.isfinite().all(1) for v in values]).all(0)
    if len(good) and not good.any():
        raise ValueError("the network's output is not finite: the weights are damaged")
    if not good.all():
        logger.warning("%d of %d Gaussians are not finite and were dropped", int((~good).sum()), len(good))
    return good


_FEWEST = 6  # views tied together, below which the network sees a stretch of them at once
_FEW_ONLY = (
    "the pictures could not be tied together as a whole: {} of them, which show most of the same, are used"
)
_FIELDS = ("means", "quats", "scales", "opacities", "sh")
