"""A scene as COLMAP sees it: cameras and points of some views, and further views located among the points."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nas3r.evaluation.baselines.mapping import file_name, find_features, import_pycolmap, map_database
from nas3r.geometry import Cameras

_LEAST_POINTS = 8  # by which a view is located


@dataclass(frozen=True)
class ColmapScene:
    """What COLMAP's incremental mapper makes of some views.

    Attributes:
        cameras: Of all views, located ones last; batch of one. Those of views that are not placed mean
            nothing.
        placed: Which views have a camera.
        points: In the frame of the cameras.
        colors: Of the points, in [0, 1].
    """

    cameras: Cameras
    placed: Bool[Tensor, "v"]
    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]


def colmap_scene(context: Float[Tensor, "c 3 h w"], others: Float[Tensor, "t 3 h w"]) -> ColmapScene | None:
    """Maps the context alone; others are then located by their matches with it, and change nothing.

    One unknown focal length, no distortion; see `map_photos`.

    Args:
        context: In [0, 1].
        others: Of the same size.

    Returns:
        The model with the most views; None if there is none.

    Raises:
        ModuleNotFoundError: If pycolmap is not installed.
    """
    pycolmap = import_pycolmap()
    views = torch.cat([context, others])
    names = [file_name(i) for i in range(len(context))]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        find_features(pycolmap, root, views)
        models = map_database(pycolmap, root, names, least=min(3, len(context)))
        if not models:
            return None
        model = max(models, key=lambda m: m.num_reg_images())
        with pycolmap.Database.open(root / "database.db") as database:
            poses = _poses(pycolmap, model, database, len(context), len(views))
    height, width = context.shape[-2:]
    camera = next(iter(model.cameras.values()))
    intrinsics = torch.from_numpy(camera.calibration_matrix() / np.array([width, height, 1.0])[:, None])
    points = list(model.points3D.values())
    placed = poses.isfinite().flatten(1).all(1)
    poses[~placed] = torch.eye(4, dtype=poses.dtype)
    return ColmapScene(
        Cameras(poses[None].float(), intrinsics.expand(1, len(views), 3, 3).float()),
        placed,
        torch.tensor(np.array([point.xyz for point in points])).reshape(-1, 3).float(),
        torch.tensor(np.array([point.color for point in points])).reshape(-1, 3).float() / 255,
    )


def _poses(pycolmap: Any, model: Any, database: Any, context: int, count: int) -> Float[Tensor, "v 4 4"]:
    """World from camera; NaN where a view has no place."""
    poses = torch.full((count, 4, 4), torch.nan, dtype=torch.float64)
    mapped = {image.name: image for image in model.images.values() if image.has_pose}
    for view in range(count):
        name = file_name(view)
        if view < context:
            found = mapped[name].cam_from_world() if name in mapped else None
        else:
            found = _located(pycolmap, model, database, name)
        if found is not None:
            poses[view] = torch.eye(4, dtype=torch.float64)
            poses[view, :3] = torch.from_numpy(found.inverse().matrix())
    return poses


def _located(pycolmap: Any, model: Any, database: Any, name: str) -> Any | None:
    """Camera from world of a view that is not in the model, by the points that its matches show."""
    own = database.read_image_with_name(name)
    keypoints = np.asarray(database.read_keypoints(own.image_id))[:, :2]
    pixels, points = [], []
    for image in model.images.values():
        if not image.has_pose or not database.exists_two_view_geometry(own.image_id, image.image_id):
            continue
        pairs = database.read_two_view_geometry(own.image_id, image.image_id).inlier_matches
        for mine, theirs in np.asarray(pairs).reshape(-1, 2):
            point = image.points2D[int(theirs)]
            if point.has_point3D():
                pixels.append(keypoints[mine])
                points.append(model.points3D[point.point3D_id].xyz)
    if len(points) < _LEAST_POINTS:
        return None
    camera = next(iter(model.cameras.values()))
    found = pycolmap.estimate_and_refine_absolute_pose(np.array(pixels), np.array(points), camera)
    return None if found is None else found["cam_from_world"]
