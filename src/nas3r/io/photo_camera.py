"""`PhotoCamera`: the camera of one photo, in its pixels; what every camera format is written from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Rotations come from float32 networks: their columns are orthonormal to about 1e-6, and exports allow
# ten times what a chain of a few products adds to that.
_RIGIDITY_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PhotoCamera:
    """One photo's pinhole camera.

    Attributes:
        file: Path of the photo relative to the folder of the export, with forward slashes.
        width: Of the photo, in pixels, upright (EXIF orientation applied).
        height: Ditto.
        intrinsics: Matrix in pixels of the photo [3, 3]; pixel (i, j) has its centre at (j + 0.5, i + 0.5).
        world_from_camera: Camera-to-world rigid motion [4, 4], OpenCV axes.
    """

    file: str
    width: int
    height: int
    intrinsics: Float[np.ndarray, "3 3"]
    world_from_camera: Float[np.ndarray, "4 4"]

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"{self.file}: expected a size of at least 1x1, got {self.width}x{self.height}")
        for name, shape in (("intrinsics", (3, 3)), ("world_from_camera", (4, 4))):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(
                    f"{self.file}: {name}: expected a finite {shape} matrix, got {value.tolist()}"
                )
            object.__setattr__(self, name, value)
        rotation = self.world_from_camera[:3, :3]
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if error > _RIGIDITY_TOLERANCE or np.linalg.det(rotation) < 0:
            raise ValueError(f"{self.file}: world_from_camera is not a rigid motion (off by {error:.1e})")
        if self.intrinsics[0, 0] <= 0 or self.intrinsics[1, 1] <= 0:
            raise ValueError(f"{self.file}: expected positive focal lengths, got {self.intrinsics.tolist()}")

    @property
    def camera_from_world(self) -> Float[np.ndarray, "4 4"]:
        """World-to-camera rigid motion."""
        rotation, center = self.world_from_camera[:3, :3], self.world_from_camera[:3, 3]
        inverse = np.eye(4)
        inverse[:3, :3], inverse[:3, 3] = rotation.T, -rotation.T @ center
        return inverse
