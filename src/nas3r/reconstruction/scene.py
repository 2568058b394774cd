"""`Scene`: a plain value, which is exported, reported and stored."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.adjustment import Landmarks
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.io.colmap import SparsePoints
from nas3r.io.photo_camera import PhotoCamera
from nas3r.reconstruction.inputs import Unreadable
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.record import Record
from nas3r.render import Rendering, render


@dataclass(frozen=True)
class HeldOut:
    """Views that took no part in the reconstruction and test it.

    Attributes:
        views: The photos.
        images: At the working size [t, 3, h, w], in [0, 1].
        cameras: As located by the network, batch of one.
    """

    views: list[View]
    images: Float[Tensor, "t 3 h w"]
    cameras: Cameras


@dataclass(frozen=True)
class Scene:
    """Cameras, depth and Gaussians of one scene, with the photos that they come from.

    Attributes:
        cameras: Of the views, batch of one [1, v, ...]; intrinsics are normalised to the images at the
            working size. `photo_cameras` has them in pixels of the original photos.
        depth: z-depth of the views at the working size [v, h, w], in the unit of the poses; 0 where unknown.
        gaussians: Batch of one.
        images: The views at the working size [v, 3, h, w], in [0, 1].
        views: The photos behind them.
        held_out: Views kept aside for testing; None if none were left over.
        record: How it came about.
        unreadable: Photos that were skipped.
        network_cameras: What the network predicted, which refinement starts from; None: like `cameras`.
        network_size: Width and height of the images it saw, if that is not the working size.
        sparse: Points that several photos show; None if cameras were not adjusted to any.
        landmarks: The same by their looks, in which further photos are found.
        confidence: In [0, 1], how far other views confirm the depth [v, h, w]; None if that is not known.
    """

    cameras: Cameras
    depth: Float[Tensor, "v h w"]
    gaussians: Gaussians
    images: Float[Tensor, "v 3 h w"]
    views: list[View]
    held_out: HeldOut | None
    record: Record
    unreadable: list[Unreadable] = field(default_factory=list)
    network_cameras: Cameras | None = field(default=None, repr=False)
    network_size: tuple[int, int] | None = None
    sparse: SparsePoints | None = field(default=None, repr=False)
    landmarks: Landmarks | None = field(default=None, repr=False)
    confidence: Float[Tensor, "v h w"] | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images at the working size."""
        return self.images.shape[-1], self.images.shape[-2]

    @property
    def photo_cameras(self) -> list[PhotoCamera]:
        """Cameras in pixels of the original photos: crop and resize undone."""
        poses = self.cameras.world_from_camera[0].double().numpy()
        intrinsics = self.cameras.intrinsics[0].double().numpy()
        return [
            PhotoCamera(
                f"images/{view.name}",
                view.resize.original_width,
                view.resize.original_height,
                view.resize.undo_intrinsics(k),
                pose,
            )
            for view, k, pose in zip(self.views, intrinsics, poses, strict=True)
        ]

    @torch.no_grad()
    def render(
        self,
        cameras: Cameras | None = None,
        height: int | None = None,
        width: int | None = None,
        **options: Any,
    ) -> Rendering:
        """Renders the scene, view by view: memory does not grow with their number.

        Args:
            cameras: Batch of one; the views' own by default.
            height: In pixels; by default that of the working size.
            width: Ditto.
            options: Of `nas3r.render`.
        """
        cameras = cameras or self.cameras
        own_width, own_height = self.size
        size = height or own_height, width or own_width
        if cameras.num_views < 2:
            return render(self.gaussians, cameras, *size, **options)
        shown = [
            render(self.gaussians, cameras.views([i]), *size, **options) for i in range(cameras.num_views)
        ]
        return Rendering(
            *(torch.cat([getattr(r, f.name) for r in shown], 1) for f in dataclasses.fields(Rendering))
        )
