"""`Rig`: cameras that an optimiser can move."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.geometry import Cameras, se3_exp


class Rig(nn.Module):
    """Start cameras times twists, with changes of focal length and principal point.

    Poses are `start @ exp(twist)`: each camera moves in its own frame. Translations are counted in `unit`, so
    that one step size suits scenes of any scale. One camera is fixed: the freedom to move the whole world is
    gone. The focal length changes by one factor for all views, or by one per view.
    """

    start_poses: Tensor
    start_intrinsics: Tensor
    twist_scale: Tensor

    def __init__(
        self, cameras: Cameras, *, unit: float, fixed: int | None, focal_per_view: bool = False
    ) -> None:
        super().__init__()
        poses, intrinsics = cameras.world_from_camera[0].detach(), cameras.intrinsics[0].detach()
        twist_scale = poses.new_tensor([unit] * 3 + [1.0] * 3).repeat(len(poses), 1)
        if fixed is not None:
            twist_scale[fixed] = 0
        self.register_buffer("start_poses", poses.clone())
        self.register_buffer("start_intrinsics", intrinsics.clone())
        self.register_buffer("twist_scale", twist_scale)
        self.twists = nn.Parameter(poses.new_zeros(len(poses), 6))
        self.log_focal = nn.Parameter(poses.new_zeros(len(poses) if focal_per_view else 1))
        self.principal_shift = nn.Parameter(poses.new_zeros(2))

    def poses(self) -> Float[Tensor, "v 4 4"]:
        """Camera-to-world poses now."""
        return self.start_poses @ se3_exp(self.twists * self.twist_scale)

    def intrinsics(self) -> Float[Tensor, "v 3 3"]:
        """Normalised intrinsics now."""
        k = self.start_intrinsics
        focal_and_skew = k[..., :2] * self.log_focal.exp()[:, None, None]
        principal_point = k[..., 2:] + F.pad(self.principal_shift, (0, 1))[:, None]
        return torch.cat([focal_and_skew, principal_point], -1)

    def cameras(self) -> Cameras:
        """Cameras now, one scene."""
        return Cameras(self.poses()[None], self.intrinsics()[None])

    @torch.no_grad()
    def place(self, views: list[int], cameras: Cameras) -> None:
        """Puts some views where they are in `cameras` (all views, one scene)."""
        self.start_poses[views] = cameras.world_from_camera[0, views]
        self.twists[views] = 0
