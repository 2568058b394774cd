"""`Reconstruction`: what `nas3r.reconstruct` returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.evaluation.nvs import psnr
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, align_cameras
from nas3r.io.images import Resize
from nas3r.io.views import PhotoCamera
from nas3r.models import NAS3R, load
from nas3r.reconstruction.findings import Finding
from nas3r.reconstruction.inputs import InputLike, Unreadable, gather
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.views import to_tensor
from nas3r.refine import locate_views
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
class Record:
    """How a reconstruction came about.

    Attributes:
        weights: Path or name of the weights; None for those that ship with the package.
        seconds: Time of each stage.
        notes: Sentences about the choice of views and the focal length.
        focal: Where focal lengths come from: "predicted", "exif" (told by the photos) or "given".
        findings: What may be wrong, and what to try.
        scores: Figures such as the PSNR of each view; JSON values.
        refined: What refinement gained; None without.
        adapted: What adaptation gained; None without.
    """

    weights: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    focal: str = "predicted"
    findings: list[Finding] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    refined: dict[str, Any] | None = None
    adapted: dict[str, Any] | None = None


@dataclass
class Reconstruction:
    """Cameras, depth and Gaussians of one scene.

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
        model: The network; loaded by `locate` when it is needed.
        network_cameras: What it predicted, which refinement starts from.
        network_size: Width and height of the images it saw, if that is not the working size.
    """

    cameras: Cameras
    depth: Float[Tensor, "v h w"]
    gaussians: Gaussians
    images: Float[Tensor, "v 3 h w"]
    views: list[View]
    held_out: HeldOut | None
    record: Record
    unreadable: list[Unreadable] = field(default_factory=list)
    model: NAS3R | None = field(default=None, repr=False)
    network_cameras: Cameras | None = field(default=None, repr=False)
    network_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images at the working size."""
        return self.images.shape[-1], self.images.shape[-2]

    @property
    def photo_cameras(self) -> list[PhotoCamera]:
        """Cameras in pixels of the original photos."""
        return photo_cameras(self.views, self.cameras)

    @torch.no_grad()
    def render(
        self,
        cameras: Cameras | None = None,
        height: int | None = None,
        width: int | None = None,
        **options: Any,
    ) -> Rendering:
        """Renders the scene.

        Args:
            cameras: Batch of one; the views' own by default.
            height: In pixels; by default that of the working size.
            width: Ditto.
            options: Of `nas3r.render`.
        """
        own_width, own_height = self.size
        return render(
            self.gaussians, cameras or self.cameras, height or own_height, width or own_width, **options
        )

    @torch.no_grad()
    def locate(self, image: InputLike) -> Cameras:
        """The camera of another photo of the scene.

        Args:
            image: A file, array, tensor or PIL image, see `nas3r.reconstruct`.

        Where the focal length was told and not predicted, that of the first view is taken.

        Returns:
            Batch of one, one view; intrinsics normalised to the whole photo, so that
            `pixel_intrinsics(width, height)` and `render(cameras, height, width)` speak of that photo.

        Raises:
            ValueError: If there is not exactly one readable image.
        """
        sources = gather(image)
        pixels = next(sources[0].read([0])) if len(sources) == 1 and len(sources[0]) == 1 else None
        if pixels is None:
            raise ValueError("locate: expected exactly one image")
        if isinstance(pixels, Unreadable):
            raise ValueError(f"{pixels.label}: {pixels.reason}")
        height, width = pixels.shape[:2]
        seen, shown = (Resize(width, height, *size) for size in (self.network_size or self.size, self.size))
        located = self._ask_network(to_tensor(seen.apply(pixels))[None])
        in_pixels = seen.undo_intrinsics(located.intrinsics)
        if self.record.refined is not None:
            start = Cameras(located.world_from_camera, shown.apply_intrinsics(in_pixels))
            with torch.enable_grad():
                located = locate_views(
                    self.gaussians, self._in_refined_frame(start), to_tensor(shown.apply(pixels))[None]
                )
            in_pixels = shown.undo_intrinsics(located.intrinsics)
        return Cameras.from_pixels(located.world_from_camera, in_pixels, width, height)

    def save(
        self,
        folder: str | Path,
        *,
        exports: Sequence[str] | None = None,
        overwrite: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Writes the result folder; it appears complete or not at all.

        Args:
            folder: New or empty folder.
            exports: Names from `nas3r.reconstruction.EXPORTS`; by default `DEFAULT_EXPORTS`.
            overwrite: Replace an earlier result in that folder.
            on_progress: Called with (what, done, total).

        Raises:
            FileExistsError: If the folder holds something and `overwrite` is not set, or holds something
                that is no earlier result.
            ValueError: For an unknown export.
        """
        from nas3r.reconstruction.output import output_folder
        from nas3r.reconstruction.storage import DEFAULT_EXPORTS, check_exports, write_folder

        names = check_exports(DEFAULT_EXPORTS if exports is None else exports)
        with output_folder(folder, overwrite=overwrite) as staging:
            write_folder(self, staging, names, on_progress=on_progress)

    @staticmethod
    def load(folder: str | Path) -> "Reconstruction":
        """Reads a result folder.

        Raises:
            ValueError: If the folder does not hold a result, or a damaged one.
            FileNotFoundError: If it does not exist.
        """
        from nas3r.reconstruction.storage import read_folder

        return read_folder(Path(folder))

    def _ask_network(self, images: Float[Tensor, "n 3 h w"]) -> Cameras:
        """Cameras of images at the network's size, in the frame of the network's prediction."""
        if self.model is None:
            self.model = load(self.record.weights)
        device = next(self.model.parameters()).device
        context_images = F.interpolate(self.images, size=images.shape[-2:], mode="area")
        told = self.record.focal != "predicted" or self.model.config.needs_intrinsics
        given = (self.network_cameras or self.cameras).intrinsics.to(device) if told else None
        context = self.model.encode_context(context_images[None].to(device), given)
        first = None if given is None else given[:, :1].expand(1, len(images), 3, 3)
        if self.network_cameras is None:
            self.network_cameras = self.model.predict(context).cameras.to("cpu")
        return self.model.locate(context, images[None].to(device), first).to("cpu")

    def _in_refined_frame(self, located: Cameras) -> Cameras:
        """Carries cameras from the network's frame and focal length into those of the refined scene."""
        before, after = self.network_cameras, self.cameras
        if before is None:
            return located
        move = align_cameras(before.world_from_camera, after.world_from_camera)
        zoom = (after.intrinsics / before.intrinsics.clamp_min(1e-9))[:, :, [0, 1], [0, 1]].mean(1)
        intrinsics = located.intrinsics.clone()
        intrinsics[..., 0, 0] *= zoom[:, None, 0]
        intrinsics[..., 1, 1] *= zoom[:, None, 1]
        return Cameras(move.poses(located.world_from_camera), intrinsics)


def photo_cameras(views: Sequence[View], cameras: Cameras) -> list[PhotoCamera]:
    """Cameras in pixels of the original photos: crop and resize undone."""
    poses = cameras.world_from_camera[0].double().numpy()
    intrinsics = cameras.intrinsics[0].double().numpy()
    return [
        PhotoCamera(
            f"images/{view.name}",
            view.resize.original_width,
            view.resize.original_height,
            view.resize.undo_intrinsics(k),
            pose,
        )
        for view, k, pose in zip(views, intrinsics, poses, strict=True)
    ]


def view_psnr(rendering: Rendering, images: Float[Tensor, "v 3 h w"]) -> list[float]:
    """PSNR in dB of each rendered view."""
    return psnr(rendering.color[0], images).tolist()


def residuals(rendering: Rendering, images: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v h w"]:
    """Mean absolute colour error per pixel."""
    return (rendering.color[0].clamp(0, 1) - images).abs().mean(1)


def best_copies(images: Float[Tensor, "v 3 h w"], targets: Float[Tensor, "t 3 h w"]) -> list[float]:
    """PSNR of the picture that resembles each target most, shown in its place: what geometry must beat."""
    return [float(np.max([psnr(image, target).item() for image in images])) for target in targets]
