"""`Cameras`: poses and normalised pinhole intrinsics of a batch of views."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.se3 import invert_pose


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras.

    Attributes:
        world_from_camera: Camera-to-world rigid motions [b, v, 4, 4]; OpenCV axes (+x right, +y down,
            +z into the scene).
        intrinsics: Normalised matrices [b, v, 3, 3]: row 0 divided by the image width, row 1 by its height,
            so that they do not change when an image is resized.
    """

    world_from_camera: Float[Tensor, "b v 4 4"]
    intrinsics: Float[Tensor, "b v 3 3"]

    def __post_init__(self) -> None:
        pose, k = self.world_from_camera, self.intrinsics
        if pose.ndim != 4 or pose.shape[-2:] != (4, 4):
            raise ValueError(f"world_from_camera: expected shape [b, v, 4, 4], got {list(pose.shape)}")
        if k.shape != (*pose.shape[:2], 3, 3):
            raise ValueError(
                f"intrinsics: expected shape {[*pose.shape[:2], 3, 3]} like the poses, got {list(k.shape)}"
            )
        if pose.device != k.device or pose.dtype != k.dtype:
            raise ValueError(
                f"cameras: poses are {pose.dtype} on {pose.device}, intrinsics {k.dtype} on {k.device}; "
                "expected the same"
            )

    @property
    def num_views(self) -> int:
        """Number of views of each batch element."""
        return self.world_from_camera.shape[1]

    @property
    def camera_from_world(self) -> Float[Tensor, "b v 4 4"]:
        """World-to-camera rigid motions."""
        return invert_pose(self.world_from_camera)

    @property
    def centers(self) -> Float[Tensor, "b v 3"]:
        """Camera centres in world coordinates."""
        return self.world_from_camera[..., :3, 3]

    @property
    def field_of_view(self) -> Float[Tensor, "b v 2"]:
        """Full angles (horizontal, vertical) in radians, for a centred principal point."""
        focal = torch.stack([self.intrinsics[..., 0, 0], self.intrinsics[..., 1, 1]], -1)
        return 2 * torch.atan(0.5 / focal)

    def pixel_intrinsics(self, width: int, height: int) -> Float[Tensor, "b v 3 3"]:
        """Intrinsics in pixels of an image of this size (pixel (i, j) has its centre at (j + .5, i + .5))."""
        return self.intrinsics * self.intrinsics.new_tensor([width, height, 1.0])[:, None]

    @classmethod
    def from_pixels(
        cls,
        world_from_camera: Float[Tensor, "b v 4 4"],
        pixel_intrinsics: Float[Tensor, "b v 3 3"],
        width: int,
        height: int,
    ) -> "Cameras":
        """Cameras from intrinsics in pixels of an image of this size."""
        scale = pixel_intrinsics.new_tensor([1.0 / width, 1.0 / height, 1.0])
        return cls(world_from_camera, pixel_intrinsics * scale[:, None])

    def views(self, index: slice | list[int] | Tensor) -> "Cameras":
        """The cameras of some views, e.g. `cameras.views([0, 2])`."""
        return Cameras(self.world_from_camera[:, index], self.intrinsics[:, index])

    def to(self, target: torch.device | torch.dtype | str) -> "Cameras":
        """Cameras on another device or of another dtype."""
        return Cameras(self.world_from_camera.to(target), self.intrinsics.to(target))

    def detach(self) -> "Cameras":
        """Cameras without gradient history."""
        return Cameras(self.world_from_camera.detach(), self.intrinsics.detach())

    @staticmethod
    def cat(cameras: "list[Cameras]") -> "Cameras":
        """Concatenation along the views."""
        return Cameras(
            torch.cat([c.world_from_camera for c in cameras], 1),
            torch.cat([c.intrinsics for c in cameras], 1),
        )
