"""Cameras adjusted to points of the photos at full size; depth and Gaussians follow them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.adjustment import (
    AdjustmentConfig,
    BendConfig,
    Landmarks,
    NotAdjustableError,
    SparseScene,
    Uncertainty,
    exact_cameras,
)
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, align_cameras
from nas3r.io.colmap import SparsePoints
from nas3r.models import Prediction
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.inputs import Pixels
from nas3r.reconstruction.lens_groups import LensGroups
from nas3r.reconstruction.photos import View, photo_pixels
from nas3r.refine.anchored import anchor

_OVERRULED = 1.1  # factor between what is told and what is found, from which that is said


@dataclass(frozen=True)
class Adjusted:
    """A prediction with cameras that were adjusted, or as it was.

    Attributes:
        prediction: Cameras, depth and Gaussians.
        sparse: Points that several photos show; None if cameras stayed.
        landmarks: The same by their looks; None if cameras stayed.
        summary: For the record; JSON values.
        notes: Sentences for the user.
        bends: First radial coefficient k1 of every view's lens; empty if none bends straight lines.
    """

    prediction: Prediction
    sparse: SparsePoints | None
    landmarks: Landmarks | None
    summary: dict[str, Any]
    notes: tuple[str, ...] = ()
    bends: tuple[float, ...] = ()


def adjusted(
    prediction: Prediction,
    views: Sequence[View],
    full: Sequence[Pixels],
    known: KnownIntrinsics,
    *,
    straight: bool = False,
) -> Adjusted:
    """Adjusts a prediction's cameras to points of the photos.

    Args:
        prediction: Of a network, before views are compared.
        views: The photos.
        full: The part of them that the network saw, at full size.
        known: What was told of their focal lengths.
        straight: Whether no lens bends straight lines, whatever points say.
    """
    groups = LensGroups.of(views, known)
    config = adjustment_config(groups, straight=straight)
    try:
        exact = exact_cameras(
            full,
            prediction.cameras,
            prediction.depth[0],
            lens_of_view=groups.of_view,
            config=config,
        )
    except NotAdjustableError as error:
        reason = f"cameras are the network's: {error}"
        return Adjusted(prediction, None, None, {"kept": False, "reason": str(error)}, (reason,))
    sparse = sparse_points(exact.sparse, views, full)
    summary = summary_of(exact.cameras, exact.sparse, exact.uncertainty, groups, views, full)
    summary["untied"] = [view.label for view, tied in zip(views, exact.tied, strict=True) if not tied]
    notes = [*overruled(exact.cameras, known, views)]
    if not exact.tied.all():
        names = ", ".join(views[i].label for i in np.flatnonzero(~exact.tied).tolist())
        notes.append(f"too few points tie {names} to the other pictures: cameras there are the network's")
    moved = following(prediction, exact.cameras, exact.depth_scale.to(prediction.depth))
    bends = bends_of(exact.distortion, groups.of_view)
    return Adjusted(moved, sparse, exact.sparse.landmarks, summary, tuple(notes), bends)


def adjustment_config(groups: LensGroups, *, straight: bool) -> AdjustmentConfig:
    """How cameras are adjusted.

    Args:
        groups: Lenses of the photos.
        straight: Whether none of them bends straight lines, whatever points say.
    """
    bend = BendConfig(spread=0.0) if straight else BendConfig()
    return AdjustmentConfig(focal_spread=groups.spread, bend=bend)


def bends_of(distortion: Float[np.ndarray, "l"], of_view: Int[np.ndarray, "v"]) -> tuple[float, ...]:
    """First radial coefficient of every photo's lens; empty if none bends straight lines."""
    return tuple(distortion[of_view].tolist()) if distortion[of_view].any() else ()


def located(
    landmarks: Landmarks, images: Sequence[Pixels], start: Cameras, before: Cameras, after: Cameras
) -> Cameras:
    """Cameras of further photos among the points; where too few are found, carried along with the others.

    Args:
        landmarks: Of the scene.
        images: The photos, at the size of those that the scene was adjusted to.
        start: Their cameras in the frame of the prediction.
        before: Of the scene's views, as predicted.
        after: The same, adjusted.
    """
    carried = carried_along(start, before, after)
    poses = carried.world_from_camera.clone()
    for i, image in enumerate(images):
        matrix = carried.pixel_intrinsics(image.shape[1], image.shape[0])[0, i].double().numpy()
        found = landmarks.locate(image, matrix)
        if found is not None:
            poses[0, i] = torch.from_numpy(found).to(poses)
    return Cameras(poses, carried.intrinsics)


def among(
    landmarks: Landmarks, images: Sequence[Pixels], intrinsics: Float[Tensor, "k 3 3"]
) -> tuple[list[int], Cameras | None]:
    """Which photos are found among the points, and their cameras; None if none is.

    Args:
        landmarks: Of the scene.
        images: The photos, at the size of those that the scene was adjusted to.
        intrinsics: Normalised ones of each; NaN where they are not known: such a photo is not looked for.
    """
    places, poses = [], []
    for place, image in enumerate(images):
        if not bool(intrinsics[place].isfinite().all()):
            continue
        size = torch.tensor([[image.shape[1]], [image.shape[0]], [1]])
        found = landmarks.locate(image, (intrinsics[place] * size).double().numpy())
        if found is not None:
            places.append(place)
            poses.append(torch.from_numpy(found).float())
    if not places:
        return [], None
    return places, Cameras(torch.stack(poses)[None], intrinsics[places][None])


def carried_along(located: Cameras, before: Cameras, after: Cameras) -> Cameras:
    """Cameras in the frame and with the focal length of a network's prediction, in those of a better scene.

    Args:
        located: To be carried.
        before: Of the scene's views, as predicted.
        after: The same, made better.
    """
    move = align_cameras(before.world_from_camera, after.world_from_camera)
    zoom = (after.intrinsics / before.intrinsics.clamp_min(1e-9))[:, :, [0, 1], [0, 1]].mean(1)
    intrinsics = located.intrinsics.clone()
    intrinsics[..., 0, 0] *= zoom[:, None, 0]
    intrinsics[..., 1, 1] *= zoom[:, None, 1]
    return Cameras(move.poses(located.world_from_camera), intrinsics)


def following(prediction: Prediction, cameras: Cameras, scale: Float[Tensor, "v"]) -> Prediction:
    """A prediction with other cameras: depth is in their unit; Gaussians keep their pixel and follow.

    Args:
        prediction: Of a network.
        cameras: Of its views, batch of one.
        scale: What to multiply depth by.
    """
    gaussians = [_moved(prediction.surface, prediction.cameras, cameras, scale)]
    if prediction.backdrop is not None:
        gaussians.append(_moved(prediction.backdrop, prediction.cameras, cameras, scale))
    return dataclasses.replace(
        prediction,
        cameras=cameras,
        depth=prediction.depth * scale[None, :, None, None],
        gaussians=Gaussians.cat(gaussians),
    )


def _moved(gaussians: Gaussians, before: Cameras, after: Cameras, scale: Float[Tensor, "v"]) -> Gaussians:
    """Gaussians that are as many for every view, in order."""
    view = torch.arange(before.num_views).repeat_interleave(gaussians.num_gaussians // before.num_views)
    return anchor(gaussians, before, view).follow(after, scale.log()[view])


def sparse_points(sparse: SparseScene, views: Sequence[View], full: Sequence[Pixels]) -> SparsePoints:
    """Points with colours, seen in pixels of the original photos.

    Args:
        sparse: Points in pixels of `full`.
        views: The photos.
        full: The part of them that points were found in.
    """
    tracks = sparse.tracks
    size = np.array(full[0].shape[1::-1])
    pixels = np.empty_like(tracks.xy)
    colors = np.zeros((tracks.num_points, 3))
    for i, view in enumerate(views):
        seen = tracks.view == i
        pixels[seen] = photo_pixels(view.resize, tracks.xy[seen] / size)
        at = np.clip(tracks.xy[seen].astype(int), 0, size - 1)
        np.add.at(colors, tracks.point[seen], full[i][at[:, 1], at[:, 0]])
    colors /= np.diff(tracks.first)[:, None]
    return SparsePoints(
        sparse.points,
        colors.round().astype(np.uint8),
        sparse.error,
        tracks.point,
        tracks.view,
        pixels,
    )


def summary_of(
    cameras: Cameras,
    sparse: SparseScene,
    doubt: Uncertainty,
    groups: LensGroups,
    views: Sequence[View],
    full: Sequence[Pixels],
) -> dict[str, Any]:
    """What the record says of adjusted cameras; JSON values.

    Args:
        cameras: Batch of one.
        sparse: Points.
        doubt: Standard deviations.
        groups: Which of the photos were taken with one lens.
        views: The photos.
        full: The part of them that points were found in.
    """
    tracks = sparse.tracks
    # Photos of one lens have one size, or the same focal length at the working size: any of them says it.
    one = np.unique(groups.of_view, return_index=True)[1]
    matrices = [views[i].resize.undo_intrinsics(cameras.intrinsics[0, i].double().numpy()) for i in one]
    focal = [float(matrix[0, 0]) for matrix in matrices]
    # What one unit is, of which centres are uncertain: the largest distance between two cameras.
    baseline = float(torch.cdist(cameras.centers[0], cameras.centers[0]).max())
    return {
        "kept": True,
        "size": [full[0].shape[1], full[0].shape[0]],
        "points": tracks.num_points,
        "observations": len(tracks.view),
        "error_px": round(float(np.median(sparse.error)), 3),
        "focal_px": [round(f, 2) for f in focal],
        "focal_sd_px": [round(float(f * s), 2) for f, s in zip(focal, doubt.focal, strict=True)],
        "rotation_sd_degrees": [round(float(np.degrees(s)), 4) for s in doubt.rotation],
        "center_sd_percent": [round(float(100 * s / baseline), 3) for s in doubt.center],
    }


def overruled(cameras: Cameras, known: KnownIntrinsics, views: Sequence[View]) -> Sequence[str]:
    """A sentence where points say another focal length than was told.

    Args:
        cameras: Of the photos, batch of one.
        known: What was told of them first.
        views: The photos.
    """
    ratio = cameras.intrinsics[0, :, 0, 0].double().numpy() / known.focal(cameras.num_views)
    far = np.flatnonzero(np.maximum(ratio, 1 / ratio) > _OVERRULED)
    if not len(far):
        return []
    which = "" if len(far) == len(views) else f" of {len(far)} of {len(views)} ({views[far[0]].label})"
    factor = float(np.median(ratio[far]))
    found = f"points in the pictures say a focal length{which} {factor:.2f} times as long as was told"
    return [f"{found}; it is used"]
