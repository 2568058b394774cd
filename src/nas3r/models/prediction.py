"""`Prediction`: what a model says about a scene."""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras


@dataclass(frozen=True)
class Prediction:
    """What a model says about a scene.

    Attributes:
        cameras: Of the context views; the first one's pose is the identity.
        depth: z-depth of the context views [b, v, h, w], in the unit of the poses.
        gaussians: The scene, in the first context camera's frame; ordered by view, row, column.
        target_cameras: Of the target views, if there were any.
        matching_loss: While training with targets, of a model that learns to match: what it learns that from.
        num_backdrop: How many of the Gaussians, the last ones, stand behind the scene.
    """

    cameras: Cameras
    depth: Float[Tensor, "b v h w"]
    gaussians: Gaussians
    target_cameras: Cameras | None = None
    matching_loss: Float[Tensor, ""] | None = None
    num_backdrop: int = 0

    @property
    def surface(self) -> Gaussians:
        """The Gaussians that stand for pixels of the context views."""
        return self.gaussians.select(slice(0, self.gaussians.num_gaussians - self.num_backdrop))

    @property
    def backdrop(self) -> Gaussians | None:
        """The Gaussians that stand behind the scene, if there are any."""
        return self.gaussians.select(slice(-self.num_backdrop, None)) if self.num_backdrop else None

    @property
    def owners(self) -> Int[Tensor, "n"]:
        """The context view of whose pixels each Gaussian is made; -1 for those behind the scene."""
        views = torch.arange(self.cameras.num_views)
        own = views.repeat_interleave(self.surface.num_gaussians // len(views))
        return F.pad(own, (0, self.num_backdrop), value=-1)

    def to(self, device: torch.device | str) -> "Prediction":
        """The prediction on another device."""
        return dataclasses.replace(
            self,
            cameras=self.cameras.to(device),
            depth=self.depth.to(device),
            gaussians=self.gaussians.to(device),
            target_cameras=None if self.target_cameras is None else self.target_cameras.to(device),
            matching_loss=None,
        )
