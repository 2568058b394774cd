"""Images with known cameras, for evaluation and supervised fine-tuning only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.geometry import Cameras


@dataclass(frozen=True)
class PosedViews:
    """Views of one scene with their true cameras.

    Attributes:
        name: Of the scene.
        images: [v, 3, h, w] in [0, 1].
        cameras: True cameras of the views, batch of one ([1, v, ...]); lens distortion is already removed
            or negligible.
        depth: z-depth in the unit of the poses [v, h, w], 0 where unknown; None if the data has none.
        depth_known_up_to: "scale" for ordinary depth; "disparity_shift" if 1 / depth is known only up to an
            affine map (rectified stereo whose disparity offset is unknown).
    """

    name: str
    images: Float[Tensor, "v 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "v h w"] | None = None
    depth_known_up_to: Literal["scale", "disparity_shift"] = "scale"

    def __post_init__(self) -> None:
        v, _, h, w = self.images.shape
        if self.cameras.world_from_camera.shape[:2] != (1, v):
            raise ValueError(
                f"{self.name}: expected cameras of shape [1, {v}, ...] for {v} images, got "
                f"{list(self.cameras.world_from_camera.shape)}"
            )
        if self.depth is not None and self.depth.shape != (v, h, w):
            raise ValueError(f"{self.name}: expected depth {[v, h, w]}, got {list(self.depth.shape)}")


@runtime_checkable
class PosedScene(Protocol):
    """A scene whose views can be read at any size."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def __len__(self) -> int:
        """Number of views."""
        ...

    def read(self, indices: Sequence[int], height: int, width: int) -> PosedViews:
        """Some views, resized to cover `height` x `width` and centre-cropped; intrinsics follow."""
        ...


@runtime_checkable
class PosedSource(Protocol):
    """An indexable collection of posed scenes. Anything with these two methods can be evaluated."""

    def __len__(self) -> int:
        """Number of scenes."""
        ...

    def __getitem__(self, index: int) -> PosedScene:
        """One scene."""
        ...


@dataclass(frozen=True)
class LabelledBatch:
    """One training batch with the true cameras and depth of its views.

    Attributes:
        context: [b, vc, 3, h, w], in [0, 1].
        target: [b, vt, 3, h, w], in [0, 1].
        cameras: Of the context views, then the target views [b, vc + vt, ...]; in the data's world.
        depth: Of the context views [b, vc, h, w] in the unit of the poses, 0 where unknown.
    """

    context: Float[Tensor, "b vc 3 h w"]
    target: Float[Tensor, "b vt 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "b vc h w"]

    @property
    def views(self) -> ViewBatch:
        """The batch without its labels."""
        return ViewBatch(self.context, self.target)

    def to(self, device: torch.device | str) -> "LabelledBatch":
        """The batch on another device."""
        return LabelledBatch(
            self.context.to(device), self.target.to(device), self.cameras.to(device), self.depth.to(device)
        )
