"""Checks of what is given to `render`, with errors that say what was expected."""

import torch
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras


def check_compatible(gaussians: Gaussians, cameras: Cameras) -> None:
    """Raises ValueError unless batch, dtype and device agree."""
    means, poses = gaussians.means, cameras.world_from_camera
    if means.shape[0] != poses.shape[0]:
        raise ValueError(
            f"cameras: expected a batch of {means.shape[0]} like the Gaussians, got {poses.shape[0]}"
        )
    if means.device != poses.device or means.dtype != poses.dtype:
        raise ValueError(
            f"cameras: expected {means.dtype} on {means.device} like the Gaussians, "
            f"got {poses.dtype} on {poses.device}"
        )
    if means.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"gaussians: expected float32 or float64, got {means.dtype}; convert with .to()")


def check_cameras(cameras: Cameras) -> None:
    """Raises ValueError if a value is not finite or a focal length not positive."""
    _check_finite({name: getattr(cameras, name) for name in cameras.__dataclass_fields__})
    focal = cameras.intrinsics.detach().diagonal(dim1=-2, dim2=-1)[..., :2]
    if not (focal > 0).all():
        raise ValueError(f"intrinsics: expected positive focal lengths, got {focal.min().item():g}")


def check_gaussians(gaussians: Gaussians, sh_degree: int) -> None:
    """Raises ValueError if a value that rendering reads is not finite."""
    values = {name: getattr(gaussians, name) for name in gaussians.__dataclass_fields__}
    values["sh"] = gaussians.sh[:, :, : (sh_degree + 1) ** 2]
    _check_finite(values)


def _check_finite(values: dict[str, Tensor]) -> None:
    finite = {name: torch.isfinite(value.detach()) for name, value in values.items()}
    if torch.stack([x.all() for x in finite.values()]).all():  # one wait for a GPU, not one for each
        return
    for name, mask in finite.items():
        if not mask.all():
            raise ValueError(f"{name}: expected finite values, got {int((~mask).sum())} that are not")
