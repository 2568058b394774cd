"""Predictions that are not finite must cost a skipped step, not the run."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.models import Prediction


def replace_non_finite(prediction: Prediction) -> tuple[Prediction, Float[Tensor, ""]]:
    """A prediction that can be rendered, and a factor for the loss.

    The factor is 1. If any value is not finite, all values are replaced by harmless ones and the factor is
    NaN: every gradient then is NaN too, and the optimiser skips the step. Nothing here waits for the device.

    Args:
        prediction: With target cameras.
    """
    assert prediction.target_cameras is not None
    gaussians, cameras, targets = prediction.gaussians, prediction.cameras, prediction.target_cameras
    tensors = [getattr(gaussians, name) for name in gaussians.__dataclass_fields__]
    tensors += [cameras.world_from_camera, cameras.intrinsics, targets.world_from_camera, targets.intrinsics]
    finite = torch.stack([torch.isfinite(x.detach()).all() for x in (*tensors, prediction.depth)]).all()

    def safe(value: Tensor, harmless: float | Tensor = 0.0) -> Tensor:
        return torch.where(finite, value, harmless)

    def safe_cameras(of: Cameras) -> Cameras:
        pose, k = of.world_from_camera, of.intrinsics
        return Cameras(
            safe(pose, torch.eye(4, dtype=pose.dtype, device=pose.device)),
            safe(k, torch.eye(3, dtype=k.dtype, device=k.device)),
        )

    clean = Gaussians(
        safe(gaussians.means),
        safe(gaussians.quats, 1.0),
        safe(gaussians.scales, 1.0),
        safe(gaussians.opacities),
        safe(gaussians.sh),
    )
    factor = torch.where(finite, 1.0, torch.nan)
    replaced = replace(
        prediction,
        cameras=safe_cameras(cameras),
        depth=safe(prediction.depth, 1.0),
        gaussians=clean,
        target_cameras=safe_cameras(targets),
    )
    return replaced, factor
