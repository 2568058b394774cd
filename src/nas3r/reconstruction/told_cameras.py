"""Cameras that are known beforehand: from COLMAP, nerfstudio, ARKit, or an earlier result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from nas3r.data.posed_sources import ImageScene, open_posed
from nas3r.data.posed_sources.distortion import largest_displacement
from nas3r.data.posed_sources.scene import Frame
from nas3r.geometry import Cameras
from nas3r.io.cameras import is_own, read_cameras
from nas3r.io.photo_camera import PhotoCamera
from nas3r.reconstruction.photos import View

_BENT = 1.0  # pixels of a photo whose longer side is 640, by which a lens may bend what is told


@dataclass(frozen=True)
class ToldCameras:
    """Cameras of some of the photos.

    Attributes:
        told: Which photos [v].
        cameras: Of all of them, batch of one; without meaning where nothing is told. Intrinsics are
            normalised to the working size; world and unit are those of the file.
        as_start: Whether they only begin the search, and points in the photos decide.
    """

    told: Bool[np.ndarray, "v"]
    cameras: Cameras
    as_start: bool


def told_cameras(path: Path, views: Sequence[View], *, as_start: bool) -> ToldCameras:
    """The cameras that a file tells of photos, which are found by their names.

    Args:
        path: A COLMAP model, a `transforms.json` or `cameras.json`, or a folder that holds one.
        views: The photos.
        as_start: Whether they are only to begin with.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If it holds no cameras of these photos, or their lenses bend what a pinhole camera would
            show.
    """
    frames = _frames(path)
    told = np.array([Path(view.label).name in frames for view in views])
    if told.sum() < 2:
        example = next(iter(frames), "none")
        raise ValueError(
            f"{path}: expected cameras of at least two of the {len(views)} photos, such as "
            f"{views[0].label}, got cameras of {len(frames)} others ({example})"
        )
    poses = torch.eye(4, dtype=torch.float64).repeat(len(views), 1, 1)
    matrices = torch.eye(3, dtype=torch.float64).repeat(len(views), 1, 1)
    for i, view in enumerate(views):
        if told[i]:
            frame = frames[Path(view.label).name]
            if not as_start:
                _require_straight(frame, path)
            poses[i] = frame.world_from_camera
            matrices[i] = torch.from_numpy(view.resize.apply_intrinsics(_pixels(frame, view)))
    first = int(np.flatnonzero(told)[0])
    matrices[torch.from_numpy(~told)] = matrices[first].clone()
    return ToldCameras(told, Cameras(poses[None].float(), matrices[None].float()), as_start)


def _frames(path: Path) -> dict[str, Frame]:
    """Cameras by the names of their photos."""
    own = path / "cameras.json" if path.is_dir() else path
    if own.suffix == ".json" and own.is_file() and is_own(own):
        return {Path(camera.file).name: _frame(camera) for camera in read_cameras(own)}
    scene = open_posed(path)[0]
    if not isinstance(scene, ImageScene):
        raise ValueError(f"{path}: expected cameras of photos (COLMAP, transforms.json or cameras.json)")
    return {frame.image.name: frame for frame in scene.frames if isinstance(frame.image, Path)}


def _frame(camera: PhotoCamera) -> Frame:
    return Frame(
        image=Path(camera.file),
        world_from_camera=torch.from_numpy(camera.world_from_camera),
        intrinsics=torch.from_numpy(camera.intrinsics),
        size=(camera.width, camera.height),
    )


def _pixels(frame: Frame, view: View) -> Float[np.ndarray, "3 3"]:
    """Intrinsics in pixels of the photo, which may be another size of the one that was told of."""
    scale = np.array([view.resize.original_width, view.resize.original_height]) / np.array(frame.size)
    if abs(scale[0] / scale[1] - 1) > 0.01:
        raise ValueError(
            f"{view.label}: expected a photo of the shape of {frame.size[0]} x {frame.size[1]} pixels, which "
            f"its camera is told for, got {view.resize.original_width} x {view.resize.original_height}"
        )
    return np.diag([*scale, 1.0]) @ frame.intrinsics.double().numpy()


def _require_straight(frame: Frame, path: Path) -> None:
    """Later stages know pinhole cameras."""
    if frame.distortion is None or frame.distortion.is_zero:
        return
    width, height = frame.size
    normalised = frame.intrinsics.double() / torch.tensor([[width], [height], [1]])
    bent = largest_displacement(frame.distortion, normalised, width, height)
    pixels = bent * 640 / max(frame.size)
    if pixels > _BENT:
        raise ValueError(
            f"{path}: the lens bends the picture by up to {pixels:.0f} pixels in 640, expected a pinhole "
            "camera; undistort the photos with COLMAP's image_undistorter, or add --cameras-prior"
        )
