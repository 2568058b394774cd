"""`Locator`: finds other photos in a scene, by the network that made it."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from nas3r.adjustment import Landmarks
from nas3r.geometry import Cameras
from nas3r.io.images import Resize
from nas3r.models import NAS3R, infer, load
from nas3r.reconstruction.adjusting import carried_along
from nas3r.reconstruction.inputs import InputLike, Pixels, Unreadable, gather
from nas3r.reconstruction.record import IN_MEMORY
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.views import FEW_VIEWS, to_tensor
from nas3r.refine import locate_views

_SMALL = 16  # pixels a side, at which photos are alike


class Locator:
    """Finds photos by a network in memory, or by the name of its weights, which are loaded at first use.

    Args:
        source: A model, the path or name of weights, or None for those that ship with the package.
    """

    def __init__(self, source: NAS3R | str | Path | None = None) -> None:
        self._source = source

    @property
    def model(self) -> NAS3R:
        """The network.

        Raises:
            ValueError: If it was a model in memory when the scene was made, and was not stored with it.
            FileNotFoundError: If the weights are not where they were.
        """
        if self._source == IN_MEMORY:
            raise ValueError(
                "this result was made by a model in memory, whose weights are not stored with it; photos can "
                "be located in results of weights that have a name"
            )
        if not isinstance(self._source, NAS3R):
            self._source = load(self._source)
        return self._source

    @torch.no_grad()
    def locate(self, scene: Scene, image: InputLike) -> Cameras:
        """The camera of another photo of a scene; see `Reconstruction.locate`."""
        pixels = _one_image(image)
        height, width = pixels.shape[:2]
        if scene.landmarks is not None and (found := _among(scene.landmarks, scene, pixels)) is not None:
            return found
        scene = _most_alike(scene, pixels)
        sizes = (scene.network_size or scene.size, scene.size)
        seen, shown = (Resize(width, height, *size, exact=True) for size in sizes)
        images = to_tensor(seen.apply(pixels))[None, None]
        device = next(self.model.parameters()).device
        context_images = F.interpolate(scene.images, size=images.shape[-2:], mode="area")
        told = scene.record.focal != "predicted" or self.model.config.needs_intrinsics
        given = (scene.network_cameras or scene.cameras).intrinsics.to(device) if told else None
        first = None if given is None else given[:, :1]
        inferred = infer(self.model, context_images[None].to(device), given)
        located = inferred.locate(images.to(device), first).to("cpu")
        if scene.record.adjusted is not None or scene.record.refined is not None:
            predicted = scene.network_cameras or inferred.prediction.cameras.to("cpu")
            located = carried_along(located, predicted, scene.cameras)
        in_pixels = seen.undo_intrinsics(located.intrinsics)
        if scene.record.refined is not None:
            start = Cameras(located.world_from_camera, shown.apply_intrinsics(in_pixels))
            with torch.enable_grad():
                located = locate_views(scene.gaussians, start, to_tensor(shown.apply(pixels))[None])
            in_pixels = shown.undo_intrinsics(located.intrinsics)
        return Cameras.from_pixels(located.world_from_camera, in_pixels, width, height)


def _most_alike(scene: Scene, pixels: Pixels) -> Scene:
    """The scene with the views alone that look most like a photo, of more than a network sees at once."""
    if len(scene.views) <= FEW_VIEWS:
        return scene
    photo = F.interpolate(to_tensor(pixels)[None], size=(_SMALL, _SMALL), mode="area")
    views = F.interpolate(scene.images, size=(_SMALL, _SMALL), mode="area")
    alike = (views - photo).square().flatten(1).mean(1).argsort()[:FEW_VIEWS].sort().values.tolist()
    network_cameras = scene.network_cameras and scene.network_cameras.views(alike)
    return replace(
        scene,
        cameras=scene.cameras.views(alike),
        network_cameras=network_cameras,
        images=scene.images[alike],
        views=[scene.views[i] for i in alike],
    )


def _one_image(image: InputLike) -> Pixels:
    sources = gather(image)
    pixels = next(sources[0].read([0])) if len(sources) == 1 and len(sources[0]) == 1 else None
    if pixels is None:
        raise ValueError("locate: expected exactly one image")
    if isinstance(pixels, Unreadable):
        raise ValueError(f"{pixels.label}: {pixels.reason}")
    return pixels


def _among(landmarks: Landmarks, scene: Scene, pixels: Pixels) -> Cameras | None:
    """The camera of a photo among a scene's points, taken with the lens of its first view."""
    height, width = pixels.shape[:2]
    shown = Resize(width, height, *scene.size, exact=True)
    matrix = shown.undo_intrinsics(scene.cameras.intrinsics[0, 0].double().numpy())
    pose = landmarks.locate(pixels, matrix)
    if pose is None:
        return None
    return Cameras.from_pixels(
        torch.from_numpy(pose).float()[None, None],
        torch.from_numpy(matrix).float()[None, None],
        width,
        height,
    )
