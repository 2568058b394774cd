"""Errors of predicted cameras: pure functions of poses and intrinsics.

Poses are `world_from_camera`, in any two worlds and at any two scales: every error here compares relative
poses or aligns first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

from nas3r.geometry import align_points, angle_between, invert_pose, rotation_angle

THRESHOLDS = (5.0, 10.0, 20.0, 30.0)
"""Degrees at which the area under the recall curve is reported."""

# A true baseline below this part of the largest one that is compared has no direction: rounding in
# float32 poses of that size already turns it by degrees.
_NO_BASELINE = 1e-5


@dataclass(frozen=True)
class PoseErrors:
    """Errors of relative poses in degrees, one per pair of views.

    Attributes:
        rotation: In [0, 180].
        translation: Between translation directions, in [0, 180]; NaN where the truth has no baseline.
        focal: Relative error of the focal length in percent, of the pair's second view; NaN if unknown.
        failed: Where there was no prediction; the errors are then 180.
    """

    rotation: Float[Tensor, "p"]
    translation: Float[Tensor, "p"]
    focal: Float[Tensor, "p"]
    failed: Bool[Tensor, "p"]

    @property
    def translation_folded(self) -> Float[Tensor, "p"]:
        """Direction error up to sign, in [0, 90]: what the published protocol reports. 90 for a failure."""
        folded = torch.minimum(self.translation, 180 - self.translation)
        return torch.where(self.failed, folded + 90, folded)

    @property
    def maximum(self) -> Float[Tensor, "p"]:
        """Larger of the rotation and the strict translation error; without baseline the rotation's."""
        return torch.fmax(self.rotation, self.translation)

    @property
    def maximum_folded(self) -> Float[Tensor, "p"]:
        """Larger of the rotation and the sign-folded translation error."""
        return torch.fmax(self.rotation, self.translation_folded)

    @staticmethod
    def cat(errors: "Sequence[PoseErrors]") -> "PoseErrors":
        """All pairs of several view sets."""
        return PoseErrors(
            *(torch.cat([getattr(e, name) for e in errors]) for name in PoseErrors.__dataclass_fields__)
        )


def all_pairs(num_views: int) -> list[tuple[int, int]]:
    """Every pair i < j of views."""
    return [(i, j) for i in range(num_views) for j in range(i + 1, num_views)]


def pose_errors(
    predicted: Float[Tensor, "v 4 4"],
    true: Float[Tensor, "v 4 4"],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    predicted_intrinsics: Float[Tensor, "v 3 3"] | None = None,
    true_intrinsics: Float[Tensor, "v 3 3"] | None = None,
) -> PoseErrors:
    """Errors of relative poses T_i^-1 T_j.

    A prediction that is not finite counts as 180 degrees; a predicted baseline of zero as 90 (no direction is
    no information).

    Args:
        predicted: Camera-to-world poses.
        true: Camera-to-world poses, in any other world and scale.
        pairs: Pairs (i, j) of views; all pairs i < j by default.
        predicted_intrinsics: Normalised, for the focal error.
        true_intrinsics: Normalised, for the focal error.

    Raises:
        ValueError: If shapes differ or a pair is out of range.
    """
    if predicted.shape != true.shape or predicted.ndim != 3 or predicted.shape[-2:] != (4, 4):
        raise ValueError(
            f"pose_errors: expected two equal shapes [v, 4, 4], got {list(predicted.shape)} and "
            f"{list(true.shape)}"
        )
    pairs = all_pairs(len(true)) if pairs is None else list(pairs)
    errors = relative_pose_errors(relative_poses(predicted, pairs), relative_poses(true, pairs))
    if predicted_intrinsics is None or true_intrinsics is None:
        return errors
    second = [j for _, j in pairs]
    focal = focal_errors(predicted_intrinsics, true_intrinsics)[second]
    return replace(errors, focal=focal.double().cpu())


def relative_poses(
    world_from_camera: Float[Tensor, "v 4 4"], pairs: Sequence[tuple[int, int]]
) -> Float[Tensor, "p 4 4"]:
    """Pose of camera j in the frame of camera i for each pair (i, j), in float64.

    Raises:
        ValueError: If there is no pair or one is out of range.
    """
    count = len(world_from_camera)
    if not pairs or not all(0 <= k < count for pair in pairs for k in pair):
        raise ValueError(f"relative_poses: expected pairs of views 0..{count - 1}, got {list(pairs)}")
    i, j = torch.tensor(pairs, device=world_from_camera.device).T
    poses = world_from_camera.detach().double()
    return invert_pose(poses[i]) @ poses[j]


def relative_pose_errors(predicted: Float[Tensor, "p 4 4"], true: Float[Tensor, "p 4 4"]) -> PoseErrors:
    """Errors of relative poses, for methods that give no poses of all views; see `pose_errors`.

    A direction is NaN where the true baseline is nothing against the largest of these pairs.
    """
    predicted, true = predicted.detach().double(), true.double()
    rotation = rotation_angle(predicted[:, :3, :3], true[:, :3, :3])
    translation = angle_between(predicted[:, :3, 3], true[:, :3, 3])
    failed = ~predicted.flatten(1).isfinite().all(-1)
    worst = torch.full_like(rotation, 180.0)
    rotation = torch.where(failed, worst, rotation)
    translation = torch.where(failed, worst, translation)
    baseline = true[:, :3, 3].norm(dim=-1)
    unknown = torch.full_like(worst, torch.nan)
    translation = torch.where(baseline > _NO_BASELINE * baseline.max(), translation, unknown)
    return PoseErrors(rotation.cpu(), translation.cpu(), unknown.cpu(), failed.cpu())


def focal_errors(predicted: Float[Tensor, "*v 3 3"], true: Float[Tensor, "*v 3 3"]) -> Float[Tensor, "*v"]:
    """Relative focal-length errors in percent, 100 |f / f_true - 1|, of normalised or pixel intrinsics.

    f is the geometric mean of fx and fy, so the ratio does not depend on the image size or aspect.
    """

    def focal(k: Tensor) -> Tensor:
        return (k[..., 0, 0] * k[..., 1, 1]).double().clamp_min(0).sqrt()

    error = 100 * (focal(predicted.detach()) / focal(true) - 1).abs()
    return torch.where(error.isfinite(), error, torch.full_like(error, torch.inf))


def auc(errors: ArrayLike | Tensor, thresholds: Sequence[float] = THRESHOLDS) -> list[float]:
    """Area under the recall curve up to each threshold, divided by the threshold: 1 is perfect.

    The recall after the i-th smallest of n errors is i / n; the curve starts at (0, 0), is linear between
    errors, and is held from the last error below the threshold to the threshold. This is the trapezoid that
    pose papers report (Sarlin et al., "SuperGlue", CVPR 2020, and its successors).

    Args:
        errors: Degrees; infinite ones count as never recalled, NaNs are an error.
        thresholds: Degrees.

    Raises:
        ValueError: If there are no errors or some are NaN.
    """
    values = np.sort(np.asarray(errors, dtype=np.float64).ravel())
    if values.size == 0 or np.isnan(values).any():
        raise ValueError(f"auc: expected at least one error and no NaN, got {values.size} errors")
    recall = np.arange(1, values.size + 1) / values.size
    values, recall = np.append(0.0, values), np.append(0.0, recall)
    areas = []
    for threshold in thresholds:
        last = int(np.searchsorted(values, threshold))
        x = np.append(values[:last], threshold)
        y = np.append(recall[:last], recall[last - 1])
        areas.append(float(np.trapezoid(y, x) / threshold))
    return areas


def recall_curve(errors: ArrayLike | Tensor, maximum: float = 30.0, steps: int = 61) -> list[float]:
    """Fraction of errors at or below each of `steps` equally spaced thresholds in [0, maximum]."""
    values = np.sort(np.asarray(errors, dtype=np.float64).ravel())
    if values.size == 0:
        raise ValueError("recall_curve: expected at least one error, got none")
    return (np.searchsorted(values, np.linspace(0, maximum, steps), side="right") / values.size).tolist()


def summarise(errors: PoseErrors, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """Medians and AUCs by name: `rotation`, `translation`, `pose`, each strict and sign-folded, and `focal`.

    Pairs whose truth has no baseline count in the rotation figures only. Entries without any pair are absent.
    """
    has_baseline = ~errors.translation.isnan()
    columns = {
        "rotation": errors.rotation,
        "translation": errors.translation[has_baseline],
        "translation_folded": errors.translation_folded[has_baseline],
        "pose": errors.maximum[has_baseline],
        "pose_folded": errors.maximum_folded[has_baseline],
    }
    out: dict[str, float] = {}
    for name, values in columns.items():
        if not len(values):
            continue
        out[f"{name}_median"] = float(np.median(values.numpy()))
        for threshold, area in zip(thresholds, auc(values, thresholds), strict=True):
            out[f"{name}_auc@{threshold:g}"] = area
    focal = errors.focal[~errors.focal.isnan()]
    if len(focal):
        out["focal_median"] = float(np.median(focal.numpy()))
    return out


@dataclass(frozen=True)
class TrajectoryError:
    """Absolute trajectory error after similarity alignment of the camera centres.

    Attributes:
        rmse: Root mean square distance of centres, in the unit of the truth.
        relative: `rmse` divided by the root mean square distance of the true centres from their mean.
    """

    rmse: float
    relative: float


def trajectory_error(predicted: Float[Tensor, "v 4 4"], true: Float[Tensor, "v 4 4"]) -> TrajectoryError:
    """ATE of three or more cameras (Sturm et al., "A Benchmark for RGB-D SLAM", IROS 2012, with scale).

    Predictions that are not finite, or all in one place, are as wrong as the mean of the truth: relative 1.

    Raises:
        ValueError: With fewer than three cameras (two always align), or if all true centres coincide.
    """
    if predicted.shape != true.shape or len(true) < 3:
        raise ValueError(
            f"trajectory_error: expected two equal shapes [v >= 3, 4, 4], got {list(predicted.shape)} and "
            f"{list(true.shape)}"
        )
    source, target = predicted[:, :3, 3].detach().double(), true[:, :3, 3].double()
    spread = float((target - target.mean(0)).square().sum(-1).mean().sqrt())
    if spread == 0:
        raise ValueError("trajectory_error: the true cameras are all in one place")
    if not bool(source.isfinite().all()) or float((source - source.mean(0)).abs().max()) == 0:
        return TrajectoryError(spread, 1.0)
    residual = align_points(source, target).points(source) - target
    rmse = float(residual.square().sum(-1).mean().sqrt())
    return TrajectoryError(rmse, rmse / spread)
