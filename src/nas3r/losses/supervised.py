"""Losses on known cameras and depth, for fine-tuning on posed data; no part of self-supervised training."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nas3r.geometry import Cameras, relative_to_first

SMALLEST_SCALE = 0.02  # of a trajectory, in units of the poses; shorter ones count as (nearly) no motion


@dataclass(frozen=True)
class SupervisedConfig:
    """Weights of the supervised terms; 0 leaves a term out.

    Attributes:
        rotation: Weight of the mean geodesic rotation error (radians).
        translation: Weight of the mean distance of camera centres, after the scene's scale is divided out.
        focal: Weight of the mean absolute log focal ratio.
        depth: Weight of the scale-invariant log depth error.
        depth_invariance: lambda of the depth error: 0 is plain squared log error, 1 ignores a scene's scale.
        depth_gradient: Weight, inside the depth error, of the matching of log-depth gradients.
    """

    rotation: float = 1.0
    translation: float = 1.0
    focal: float = 0.5
    depth: float = 1.0
    depth_invariance: float = 0.85
    depth_gradient: float = 0.5


def rotation_error(predicted: Float[Tensor, "*b 4 4"], true: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Angle between rotations in radians, with a gradient everywhere.

    Uses the chord ||R - R'||_F = 2 sqrt(2) sin(angle / 2), whose inverse sine is well behaved at zero, where
    the usual arc cosine of the trace is not (Hartley et al., "Rotation Averaging", IJCV 2013, sec. 4.2).
    """
    squared = ((predicted[..., :3, :3] - true[..., :3, :3]) ** 2).sum((-2, -1))
    # The offset keeps the gradient of the root finite at zero error; 1e-8 is 0.006 degrees.
    chord = torch.sqrt(squared + 1e-8) / 8**0.5
    return 2 * torch.asin(chord.clamp(max=1 - 1e-6))


def camera_scale(world_from_camera: Float[Tensor, "b v 4 4"]) -> Float[Tensor, "b"]:
    """Mean distance of the other camera centres from the first: the unit that translations are compared in.

    Never below `SMALLEST_SCALE`, smoothly: an untrained network predicts no motion at all, and dividing by
    that would explode.
    """
    centers = world_from_camera[..., :3, 3]
    distance = (centers[:, 1:] - centers[:, :1]).norm(dim=-1).mean(1)
    return torch.sqrt(distance**2 + SMALLEST_SCALE**2)


def translation_error(
    predicted: Float[Tensor, "b v 4 4"], true: Float[Tensor, "b v 4 4"]
) -> Float[Tensor, "b v"]:
    """Distance of camera centres when each trajectory is divided by its own `camera_scale`.

    The scale of a scene is a gauge freedom; for two views this compares directions only, as it must.
    """
    p = predicted[..., :3, 3] / camera_scale(predicted)[:, None, None]
    t = true[..., :3, 3] / camera_scale(true)[:, None, None]
    # The offset keeps the gradient of the root finite at zero error.
    return torch.sqrt(((p - t) ** 2).sum(-1) + 1e-8)


def log_depth_error(
    predicted: Float[Tensor, "b v h w"],
    true: Float[Tensor, "b v h w"],
    *,
    invariance: float = 0.85,
    gradient: float = 0.5,
) -> Float[Tensor, ""]:
    """Scale-invariant log depth error plus matching of horizontal and vertical log-depth differences.

    Source: Eigen et al., "Depth Map Prediction from a Single Image", NIPS 2014, eq. 3 and 4; the gradient
    term is the one of Eigen and Fergus, ICCV 2015, eq. 1. The views of a scene share one scale.

    Args:
        predicted: Positive z-depths.
        true: z-depths; 0 where unknown.
        invariance: lambda in [0, 1].
        gradient: Weight of the gradient term.
    """
    valid = true > 0
    count = valid.sum((1, 2, 3)).clamp_min(1)
    difference = torch.where(
        valid, torch.log(predicted.clamp_min(1e-6)) - torch.log(torch.where(valid, true, 1.0)), 0.0
    )
    mean_square = (difference**2).sum((1, 2, 3)) / count
    mean = difference.sum((1, 2, 3)) / count
    error = mean_square - invariance * mean**2
    if gradient > 0:
        error = error + gradient * _gradient_error(difference, valid, count)
    return error.mean()


def _gradient_error(
    difference: Float[Tensor, "b v h w"], valid: Bool[Tensor, "b v h w"], count: Float[Tensor, "b"]
) -> Float[Tensor, "b"]:
    both_x = valid[..., :, 1:] & valid[..., :, :-1]
    both_y = valid[..., 1:, :] & valid[..., :-1, :]
    dx = (difference[..., :, 1:] - difference[..., :, :-1]) * both_x
    dy = (difference[..., 1:, :] - difference[..., :-1, :]) * both_y
    return ((dx**2).sum((1, 2, 3)) + (dy**2).sum((1, 2, 3))) / count


class SupervisedLoss(nn.Module):
    """Weighted sum of pose, focal and depth errors."""

    def __init__(self, config: SupervisedConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        cameras: Cameras,
        depth: Float[Tensor, "b vd h w"],
        true_cameras: Cameras,
        true_depth: Float[Tensor, "b vd h w"] | None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Loss and its terms.

        Args:
            cameras: Predicted, first view first; the world is the first camera.
            depth: Predicted for the first `vd` views.
            true_cameras: In any world frame and scale.
            true_depth: 0 where unknown; None without depth labels.

        Raises:
            ValueError: If the numbers of views differ.
        """
        if cameras.num_views != true_cameras.num_views:
            raise ValueError(
                f"supervised loss: {cameras.num_views} predicted cameras against "
                f"{true_cameras.num_views} true ones"
            )
        config = self.config
        predicted = relative_to_first(cameras.world_from_camera)
        true = relative_to_first(true_cameras.world_from_camera)
        terms = {
            "rotation": rotation_error(predicted[:, 1:], true[:, 1:]).mean(),
            "translation": translation_error(predicted, true)[:, 1:].mean(),
            "focal": _log_focal_error(cameras.intrinsics, true_cameras.intrinsics),
        }
        if true_depth is not None:
            # Depth and translation share one unit: labels are brought to the predicted trajectory's.
            unit = (camera_scale(predicted).detach() / camera_scale(true))[:, None, None, None]
            terms["depth"] = log_depth_error(
                depth, true_depth * unit, invariance=config.depth_invariance, gradient=config.depth_gradient
            )
        loss = torch.stack([getattr(config, name) * term for name, term in terms.items()]).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}


def _log_focal_error(
    predicted: Float[Tensor, "b v 3 3"], true: Float[Tensor, "b v 3 3"]
) -> Float[Tensor, ""]:
    focal_p = torch.stack([predicted[..., 0, 0], predicted[..., 1, 1]], -1)
    focal_t = torch.stack([true[..., 0, 0], true[..., 1, 1]], -1)
    return (torch.log(focal_p.clamp_min(1e-6)) - torch.log(focal_t)).abs().mean()
