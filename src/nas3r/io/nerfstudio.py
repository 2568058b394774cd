"""`transforms.json` of nerfstudio (and instant-ngp): cameras in OpenGL axes.

Camera axes are +x right, +y UP, +z BACKWARD, so the second and third column of each camera-to-world matrix
change sign with respect to OpenCV. The axes of the world stay those of this project, so the point cloud next
to the file fits without any transform.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas3r.io.atomic import write_text
from nas3r.io.json_files import read_object, reading_fields
from nas3r.io.photo_camera import PhotoCamera

_OPENCV_FROM_OPENGL = np.diag([1.0, -1, -1, 1])


def write_transforms(
    path: Path | str, views: Sequence[PhotoCamera], *, point_cloud: str | None = None
) -> None:
    """Writes `transforms.json`, with intrinsics per frame since photos may come from different cameras.

    Args:
        path: File to write (atomically).
        views: Cameras of the photos.
        point_cloud: Path of a coloured PLY relative to the file, from which splat training can start.
    """
    document: dict[str, Any] = {"camera_model": "OPENCV"}
    if point_cloud is not None:
        document["ply_file_path"] = point_cloud
    document["frames"] = [_frame(view) for view in views]
    write_text(path, json.dumps(document, indent=2) + "\n")


def read_transforms(path: Path | str) -> list[PhotoCamera]:
    """Reads the cameras of a `transforms.json` without lens distortion.

    Raises:
        ValueError: If a field is missing, or the cameras have distortion.
    """
    document = read_object(path)
    with reading_fields(str(path), "transforms.json of nerfstudio"):
        return [_view(document | frame) for frame in document["frames"]]


def _frame(view: PhotoCamera) -> dict[str, Any]:
    k = view.intrinsics
    return {
        "file_path": view.file,
        "w": view.width,
        "h": view.height,
        "fl_x": k[0, 0],
        "fl_y": k[1, 1],
        "cx": k[0, 2],
        "cy": k[1, 2],
        "transform_matrix": (view.world_from_camera @ _OPENCV_FROM_OPENGL).tolist(),
    }


def _completed(frame: dict[str, Any]) -> dict[str, Any]:
    """The frame with everything that the format lets one leave out."""
    focal = frame["fl_x"] if "fl_x" in frame else frame["w"] / 2 / math.tan(frame["camera_angle_x"] / 2)
    return {"cx": frame["w"] / 2, "cy": frame["h"] / 2, "fl_x": focal, "fl_y": focal, **frame}


def _view(frame: dict[str, Any]) -> PhotoCamera:
    if any(frame.get(key, 0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")):
        raise ValueError(
            f"{frame['file_path']}: lens distortion is not supported; undistort the images first"
        )
    if "fl_x" not in frame and "camera_angle_x" not in frame:
        raise ValueError(f"{frame['file_path']}: tells no focal length (neither fl_x nor camera_angle_x)")
    frame = _completed(frame)
    intrinsics = np.array([[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1.0]])
    pose = np.array(frame["transform_matrix"], np.float64) @ _OPENCV_FROM_OPENGL
    return PhotoCamera(frame["file_path"], int(frame["w"]), int(frame["h"]), intrinsics, pose)
