"""nerfstudio's (and instant-ngp's and Blender's) `transforms.json`."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nas3r.data.posed_sources.depth_image import depth_png
from nas3r.data.posed_sources.distortion import Distortion, brown
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.io.images import image_size
from nas3r.io.json_files import read_object, reading_fields

# OpenGL camera axes (+y up, looking along -z) to OpenCV's.
_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_SPLITS = ("train", "val", "test")
_PINHOLE_MODELS = {"OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV"}


def is_transforms(path: Path) -> bool:
    """Whether a folder holds, or a file is, such a description."""
    return any(file.is_file() and file.suffix == ".json" and _mentions_poses(file) for file in _files(path))


def _mentions_poses(file: Path) -> bool:
    return b"transform_matrix" in file.read_bytes().replace(b"\0", b"")  # UTF-16 has a zero in each letter


def _files(path: Path) -> list[Path]:
    """The file itself, or what a folder holds: one description, or Blender's, split for training."""
    if not path.is_dir():
        return [path]
    whole = path / "transforms.json"
    if whole.is_file():
        return [whole]
    return [file for split in _SPLITS if (file := path / f"transforms_{split}.json").is_file()]


def read_transforms(path: Path) -> ImageScene:
    """The scene of a `transforms.json`, or of Blender's `transforms_train.json`, `_val` and `_test` together.

    Intrinsics (`fl_x fl_y cx cy w h`, or `camera_angle_x`) and distortion (`k1 k2 k3 p1 p2`, or fisheye `k1`
    to `k4`) stand at the top or in a frame, which takes precedence. `transform_matrix` is camera to world
    with OpenGL axes. An image is looked for at `file_path` beside the JSON file, then in `images/`.
    `depth_file_path`, if present, is a 16-bit PNG in units of `depth_unit_scale_factor` (default 0.001).

    Raises:
        ValueError: If the file is damaged, its camera model unknown, or none of its images exists.
    """
    files = _files(path)
    folder = files[0].parent
    name = str(files[0] if len(files) == 1 else folder)
    with reading_fields(name, "transforms.json of nerfstudio"):
        entries = [entry for file in files for entry in _entries(file)]
        kept = keep_usable([partial(_frame, folder, entry) for entry in entries], name)
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out)


def _entries(file: Path) -> list[dict[str, Any]]:
    """The frames of a file, each with what stands at its top."""
    content = read_object(file)
    return [{**content, **entry} for entry in content["frames"]]


def _frame(folder: Path, entry: dict[str, Any]) -> Frame:
    image = _locate(folder, str(entry["file_path"]))
    size = _size(entry, image)
    depth = entry.get("depth_file_path")
    return Frame(
        image=image,
        world_from_camera=rigid(entry["transform_matrix"], str(entry["file_path"])) @ _FLIP,
        intrinsics=_intrinsics(entry, *size),
        size=size,
        distortion=_distortion(entry),
        depth=depth_png(folder / depth, float(entry.get("depth_unit_scale_factor", 1e-3))) if depth else None,
    )


def _locate(folder: Path, name: str) -> Path:
    relative = Path(name.replace("\\", "/"))
    candidates = [folder / relative, folder / "images" / relative.name]
    if not relative.suffix:  # Blender's scenes leave it out
        candidates = [c.with_name(c.name + suffix) for c in candidates for suffix in (".png", ".jpg")]
    return next((c for c in candidates if c.is_file()), candidates[0])


def _size(entry: dict[str, Any], image: Path) -> tuple[int, int]:
    if "w" in entry and "h" in entry:
        return int(entry["w"]), int(entry["h"])
    return image_size(image) if image.is_file() else (1, 1)  # a missing image is dropped later


def _intrinsics(entry: dict[str, Any], width: int, height: int) -> torch.Tensor:
    if not entry.get("fl_x") and "camera_angle_x" not in entry:
        raise ValueError(f"{entry['file_path']}: tells no focal length (neither fl_x nor camera_angle_x)")
    fx = entry.get("fl_x") or width / 2 / math.tan(float(entry["camera_angle_x"]) / 2)
    return pinhole(
        float(fx),
        float(entry.get("fl_y", fx)),
        float(entry.get("cx", width / 2)),
        float(entry.get("cy", height / 2)),
    )


def _distortion(entry: dict[str, Any]) -> Distortion | None:
    model = str(entry.get("camera_model", "OPENCV"))
    k = [float(entry.get(name, 0)) for name in ("k1", "k2", "k3", "k4")]
    if model == "OPENCV_FISHEYE" or entry.get("is_fisheye"):
        return Distortion("fisheye", tuple(k))
    if model not in _PINHOLE_MODELS:
        raise ValueError(
            f"camera model {model} is not supported; expected a perspective or OpenCV fisheye model"
        )
    tangential = [float(entry.get(name, 0)) for name in ("p1", "p2")]
    return brown([*k[:2], *tangential, k[2]])
