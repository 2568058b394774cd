"""`reconstruct`: from photos to cameras, depth and Gaussians."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.models import NAS3R, Prediction, load
from nas3r.reconstruction.findings import geometry_findings, input_findings, remedies, rendering_findings
from nas3r.reconstruction.focal_lengths import known_intrinsics
from nas3r.reconstruction.inputs import InputLike
from nas3r.reconstruction.refinement import DEFAULT_DETAIL, refined
from nas3r.reconstruction.result import (
    HeldOut,
    Reconstruction,
    Record,
    best_copies,
    residuals,
    view_psnr,
)
from nas3r.reconstruction.views import Views, prepare_views

logger = logging.getLogger(__name__)

DEFAULT_HELD_OUT = 2

Progress = Callable[[str, int, int], None]
Adapt = Callable[[NAS3R, UInt8[Tensor, "n 3 h w"]], tuple[NAS3R, dict[str, Any]]]


def reconstruct(
    images: Sequence[InputLike] | InputLike,
    *,
    weights: str | Path | NAS3R | None = None,
    views: int | None = None,
    held_out: int = DEFAULT_HELD_OUT,
    size: int | None = None,
    focal_35mm: float | None = None,
    ignore_exif: bool = False,
    adapt: Adapt | None = None,
    refine_seconds: float | None = None,
    refine_steps: int | None = None,
    detail: int = DEFAULT_DETAIL,
    surface_only: bool = False,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """Cameras, depth and Gaussians of a static scene from a few unposed photos or a video.

    Args:
        images: Image files, a folder of images, a video, arrays, tensors or PIL images of one scene.
        weights: A weights file, a preset's name (random weights), or a model; by default the weights that
            ship with the package.
        views: Most views to reconstruct from; by default eight, and fewer, but not fewer than four, where
            that leaves pictures to test with. From more pictures, views are chosen for parallax and
            sharpness.
        held_out: Most pictures, of those left over, that are kept aside to test with.
        size: Side in pixels of the square that has as many pixels as the images the network sees; by default
            what the model was trained on. The actual size follows the photos' aspect ratio.
        focal_35mm: Focal length of all pictures in mm of full frame, if it is known; by default what the
            photos' EXIF data say. Models that solve for poses, as those that ship do, find better cameras
            with it, and predict it where nothing tells it.
        ignore_exif: Does not believe the EXIF data, for example of photos that were cropped.
        adapt: Fine-tunes the model on the pictures that are not kept aside, uint8 [n, 3, h, w]; returns the
            model to use and figures for the record (see `nas3r.training.adapt`).
        refine_seconds: If given, cameras and Gaussians are refined against the photos for so long.
        refine_steps: The same in steps, for results that do not depend on the machine's speed; with both,
            whichever ends first.
        detail: With refinement: about the side in pixels of the square that has as many pixels as the
            images that are fitted at the end, if that is more than the network sees.
        surface_only: Leaves out the blurred backdrop that keeps gaps between surfaces from being black.
        device: Where the network runs; by default CUDA if there is one.
        on_progress: Called with (what, done, total).

    Returns:
        The reconstruction, on the CPU.

    Raises:
        ValueError: If fewer than two different pictures can be used, the camera did not move, or a model
            must be told the focal length and nothing tells it.
        FileNotFoundError: If a named file does not exist.
    """
    if views is not None and views < 2:
        raise ValueError(f"views: expected at least 2, got {views}")
    if refine_seconds is not None and not refine_seconds > 0:
        raise ValueError(f"refine: expected a positive number of seconds, got {refine_seconds}")
    if refine_steps is not None and refine_steps < 1:
        raise ValueError(f"refine steps: expected at least 1, got {refine_steps}")
    seconds: dict[str, float] = {}
    with _stage(seconds, "load weights"):
        model = weights if isinstance(weights, NAS3R) else load(weights, device)
    with _stage(seconds, "read pictures"):
        prepared = prepare_views(
            images,
            count=views,
            num_held_out=held_out,
            image_size=size or model.config.image_size,
            patch_size=model.config.patch_size,
            landscape_only=model.config.landscape_only,
            on_progress=on_progress,
        )
    name = "a model in memory" if isinstance(weights, NAS3R) else weights and str(weights)
    record = Record(weights=name, seconds=seconds, notes=list(prepared.warnings))
    if adapt is not None:
        with _stage(seconds, "adapt"):
            model, gained = adapt(model, prepared.clip())
        record = replace(record, weights="a model in memory", adapted=gained)
    with _stage(seconds, "network"):
        known = known_intrinsics(
            model, [*prepared.context, *prepared.held_out], focal_35mm, ignore_exif=ignore_exif
        )
        prediction, tests = _predict(model, prepared, known.matrices)
    record = replace(record, focal=known.origin, notes=[*record.notes, *known.notes])
    kept = _finite(prediction.gaussians)
    if surface_only:
        kept &= prediction.owners >= 0
    result = Reconstruction(
        cameras=prediction.cameras,
        depth=prediction.depth[0],
        gaussians=prediction.gaussians.select(kept),
        images=prepared.context_images,
        views=prepared.context,
        held_out=tests,
        record=record,
        unreadable=prepared.unreadable,
        model=model,
        network_cameras=prediction.cameras,
        network_size=(prepared.images.shape[-1], prepared.images.shape[-2]),
    )
    if refine_seconds is not None or refine_steps is not None:
        with _stage(seconds, "refine"):
            result = refined(
                result,
                prediction.owners[kept],
                refine_seconds,
                steps=refine_steps,
                detail=detail,
                on_progress=on_progress,
            )
    with _stage(seconds, "check"):
        _judge(result)
    return result


@contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 3)


@torch.no_grad()
def _predict(
    model: NAS3R, prepared: Views, given: Float[Tensor, "1 v 3 3"] | None
) -> tuple[Prediction, HeldOut | None]:
    device = next(model.parameters()).device
    count = len(prepared.context)
    context = model.encode_context(
        prepared.context_images[None].to(device), None if given is None else given[:, :count].to(device)
    )
    prediction = model.predict(context).to("cpu")
    if not prepared.held_out or not model.config.masked:
        return prediction, None
    images = prepared.held_out_images
    cameras = model.locate(
        context, images[None].to(device), None if given is None else given[:, count:].to(device)
    )
    return prediction, HeldOut(prepared.held_out, images, cameras.to("cpu"))


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


def _judge(result: Reconstruction) -> None:
    """Renders all views, scores them and notes what may be wrong."""
    record = result.record
    rendering = result.render()
    scores = view_psnr(rendering, result.images)
    record.scores["psnr"] = [round(value, 2) for value in scores]
    tested, copied = [], []
    if result.held_out is not None:
        held_out = result.held_out
        tested = view_psnr(result.render(held_out.cameras), held_out.images)
        copied = best_copies(result.images, held_out.images)
        record.scores["held_out_psnr"] = [round(value, 2) for value in tested]
        record.scores["held_out_copy_psnr"] = [round(value, 2) for value in copied]
    labels = [view.label for view in result.views]
    remedy = remedies(refined=record.refined is not None, adapted=record.adapted is not None)
    record.findings.extend(
        [
            *input_findings(result.views, result.images),
            *geometry_findings(
                result.cameras, result.depth, remedy, focal_predicted=record.focal == "predicted"
            ),
            *rendering_findings(labels, scores, residuals(rendering, result.images), tested, copied, remedy),
        ]
    )
