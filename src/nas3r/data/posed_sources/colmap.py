"""COLMAP sparse models, text and binary: cameras and poses (the points are not needed)."""

import logging
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from nas3r.data.posed_sources.distortion import Distortion, brown
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.geometry import invert_pose, make_pose, matrix_from_quat
from nas3r.io.images import natural_key

logger = logging.getLogger(__name__)

# COLMAP's camera models by their number in binary files, with their number of parameters
# (src/colmap/sensor/models.h).
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
}
# Those that are not read, for messages.
_OTHER_MODELS = {
    7: "FOV",
    8: "SIMPLE_RADIAL_FISHEYE",
    9: "RADIAL_FISHEYE",
    10: "THIN_PRISM_FISHEYE",
    11: "RAD_TAN_THIN_PRISM_FISHEYE",
}
_PARAMETERS = dict(_MODELS.values())

# Where models lie relative to the folder that is given, in order of preference.
_PLACES = ("", "sparse/*", "sparse", "colmap/sparse/*", "dense/sparse")


class UnsupportedLensError(ValueError):
    """A camera model that is not read, in a file that is as it should be."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"camera model {model} is not supported, only perspective models and OPENCV_FISHEYE; undistort "
            "the images with COLMAP's image_undistorter, and name its result"
        )


@dataclass(frozen=True)
class _Camera:
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    name: str
    camera: int
    quat: tuple[float, ...]  # wxyz, world to camera
    translation: tuple[float, ...]


def find_model(folder: Path) -> Path | None:
    """The folder of the sparse model in or under `folder`, None if there is none.

    Where the mapper left several, `sparse/0` is often a fragment: the one with the most images is taken.
    """
    for place in _PLACES:
        models = sorted(folder.glob(place)) if place else [folder]
        if models := [model for model in models if _suffix(model) is not None]:
            sizes = [_images_file(model).stat().st_size for model in models]
            best = models[sizes.index(max(sizes))]
            if len(models) > 1:
                logger.info("%s: of %d models the largest, %s, is read", folder, len(models), best.name)
            return best
    return None


def _suffix(model: Path) -> str | None:
    """In which form a folder holds a model; None if it holds none."""
    names = ("cameras", "images")
    return next((s for s in (".bin", ".txt") if all((model / f"{n}{s}").is_file() for n in names)), None)


def _images_file(model: Path) -> Path:
    return model / f"images{_suffix(model)}"


def is_colmap(folder: Path) -> bool:
    """Whether the folder is or contains a sparse model."""
    return find_model(folder) is not None


def read_colmap(folder: Path) -> ImageScene:
    """The scene of a COLMAP model, views in natural order of their names.

    Images are looked for in `images/` beside the model or in a folder above it.

    Raises:
        ValueError: If the model is damaged or truncated, a camera model is not a perspective or OpenCV
            fisheye one, or none of its images exists.
    """
    model = find_model(folder)
    if model is None:
        raise ValueError(f"{folder}: no COLMAP model (cameras and images, .bin or .txt)")
    suffix = _suffix(model)
    readers = (
        (_read_cameras_bin, _read_images_bin) if suffix == ".bin" else (_read_cameras_txt, _read_images_txt)
    )
    try:
        cameras = readers[0](model / f"cameras{suffix}")
        images = readers[1](model / f"images{suffix}")
    except UnsupportedLensError as error:
        raise ValueError(f"{model}: {error}") from None
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"{model}: damaged or truncated COLMAP model ({error})") from error
    roots = [folder / "images", *(parent / "images" for parent in (model, *list(model.parents)[:3])), folder]
    ordered = sorted(images, key=lambda i: natural_key(i.name))
    kept = keep_usable([partial(_frame, image, cameras, roots, model) for image in ordered], str(model))
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out)


def _frame(image: _Image, cameras: dict[int, _Camera], roots: list[Path], model: Path) -> Frame:
    if image.camera not in cameras:
        raise ValueError(f"image {image.name} has camera {image.camera}, which is not in the model")
    camera = cameras[image.camera]
    quat = torch.tensor(image.quat, dtype=torch.float64)
    translation = torch.tensor(image.translation, dtype=torch.float64)
    intrinsics, distortion = _lens(camera)
    path = next((p for root in roots if (p := root / image.name).is_file()), roots[0] / image.name)
    return Frame(
        image=path,
        world_from_camera=invert_pose(rigid(make_pose(matrix_from_quat(quat), translation), image.name)),
        intrinsics=intrinsics,
        size=(camera.width, camera.height),
        distortion=distortion,
    )


def _lens(camera: _Camera) -> tuple[torch.Tensor, Distortion | None]:
    p = camera.parameters
    match camera.model:
        case "SIMPLE_PINHOLE" | "SIMPLE_RADIAL" | "RADIAL":
            return pinhole(p[0], p[0], p[1], p[2]), brown(p[3:])
        case "OPENCV_FISHEYE":
            return pinhole(*p[:4]), Distortion("fisheye", tuple(p[4:]))
        case _:  # PINHOLE, OPENCV, FULL_OPENCV: OpenCV's own order
            return pinhole(*p[:4]), brown(p[4:])


def _unpack(file: BinaryIO, layout: str) -> tuple:
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _read_cameras_bin(path: Path) -> dict[int, _Camera]:
    cameras = {}
    with path.open("rb") as file:
        (count,) = _unpack(file, "Q")
        for _ in range(count):
            key, model, width, height = _unpack(file, "iiQQ")
            if model not in _MODELS:
                raise UnsupportedLensError(_OTHER_MODELS.get(model, f"number {model}"))
            name, parameters = _MODELS[model]
            cameras[key] = _Camera(name, width, height, _unpack(file, f"{parameters}d"))
    return cameras


def _read_name(file: BinaryIO) -> str:
    name = bytearray()
    while (byte := file.read(1)) != b"\0":
        if not byte:
            raise ValueError("the file ends within an image name")
        name += byte
    return name.decode()


def _read_images_bin(path: Path) -> list[_Image]:
    images = []
    size = path.stat().st_size
    with path.open("rb") as file:
        (count,) = _unpack(file, "Q")
        for number in range(count):
            values = _unpack(file, "i7di")
            name = _read_name(file)
            (points,) = _unpack(file, "Q")
            end = file.tell() + 24 * points  # x, y as double, point id as int64
            if end > size:
                raise ValueError(f"the file ends within image {number + 1} of {count}")
            file.seek(end)
            images.append(_Image(name, values[8], values[1:5], values[5:8]))
    return images


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def _read_cameras_txt(path: Path) -> dict[int, _Camera]:
    cameras = {}
    for line in filter(None, map(str.strip, _lines(path))):
        key, model, width, height, *parameters = line.split()
        if model not in _PARAMETERS:
            raise UnsupportedLensError(model)
        if _PARAMETERS[model] != len(parameters):
            raise ValueError(
                f"camera model {model}: expected {_PARAMETERS[model]} parameters, got {len(parameters)}"
            )
        cameras[int(key)] = _Camera(model, int(width), int(height), tuple(map(float, parameters)))
    return cameras


def _read_images_txt(path: Path) -> list[_Image]:
    images = []
    # Each image has two lines; the second lists its points and may be empty.
    for line in _lines(path)[::2]:
        if not line.strip():
            continue
        fields = line.split(maxsplit=9)
        values = tuple(map(float, fields[1:8]))
        images.append(_Image(fields[9].strip(), int(fields[8]), values[:4], values[4:]))
    return images
