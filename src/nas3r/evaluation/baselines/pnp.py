"""Poses from predicted geometry instead of from the camera head: perspective-n-point with RANSAC."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.evaluation.baselines.two_view import import_cv2
from nas3r.geometry import invert_pose, make_pose, pixel_grid
from nas3r.models import ModelConfig, Prediction

# The published evaluation's settings.
_MIN_OPACITY = 0.2
_ITERATIONS = 100
_THRESHOLD = 5.0  # pixels
_MIN_POINTS = 4


def pnp_pose(
    points: Float[Tensor, "n 3"],
    xy: Float[Tensor, "n 2"],
    intrinsics: Float[Tensor, "3 3"],
    height: int,
    width: int,
) -> Float[Tensor, "4 4"]:
    """World-from-camera pose at which points project to normalised image positions; NaN if none was found.

    Raises:
        ModuleNotFoundError: If OpenCV is not installed.
    """
    failed = torch.full((4, 4), torch.nan, dtype=torch.float64)
    if len(points) < _MIN_POINTS or not bool(points.isfinite().all() and intrinsics.isfinite().all()):
        return failed
    cv2 = import_cv2()
    scale = torch.tensor([width, height, 1.0], dtype=torch.float64)
    cv2.setRNGSeed(0)
    found, rotation, translation, _ = cv2.solvePnPRansac(
        points.double().numpy(),
        (xy.double() * scale[:2]).numpy(),
        (intrinsics.double() * scale[:, None]).numpy(),
        None,
        iterationsCount=_ITERATIONS,
        reprojectionError=_THRESHOLD,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found:
        return failed
    matrix = torch.tensor(np.asarray(cv2.Rodrigues(rotation)[0]))
    return invert_pose(make_pose(matrix, torch.tensor(translation[:, 0])))


def predicted_pnp_poses(
    prediction: Prediction, config: ModelConfig, height: int, width: int
) -> Float[Tensor, "v 4 4"]:
    """PnP poses of all context views from the Gaussians each of them contributed.

    Gaussians with an opacity above 0.2 are matched to the places in the image they were lifted from. Where a
    model lifts depth with its own predicted pose, as all shipped and official ones do, these points carry
    that pose exactly and PnP can only repeat it; for regressed points it is an estimate of its own.
    """
    stride = config.gaussians.stride
    rows, columns = height // stride, width // stride
    offset = config.depth.pixel_offset if stride == 1 else 0.5
    xy = pixel_grid(rows, columns, pixel_offset=offset).reshape(-1, 2)
    views = prediction.cameras.num_views
    surface = prediction.surface
    means = surface.means[0].reshape(views, rows * columns, 3)
    opaque = surface.opacities[0].reshape(views, rows * columns) > _MIN_OPACITY
    poses = [
        pnp_pose(means[v][opaque[v]], xy[opaque[v]], prediction.cameras.intrinsics[0, v], height, width)
        for v in range(views)
    ]
    return torch.stack(poses)
