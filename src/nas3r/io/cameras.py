"""`cameras.json`: the cameras of a result, in the pixels of the user's photos."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas3r.io.atomic import write_text
from nas3r.io.json_files import read_object, reading_fields
from nas3r.io.photo_camera import PhotoCamera

_FORMAT = "nas3r-cameras"
_NOTE = (
    "Pinhole cameras without distortion, axes x right, y down, z into the scene (OpenCV). "
    "world_from_camera is camera to world; intrinsics are in pixels of the upright photo, the centre of its "
    "first pixel at (0.5, 0.5). The world is the frame of the first camera; its unit is arbitrary."
)


def write_cameras(path: Path | str, views: Sequence[PhotoCamera], **extra: Any) -> None:
    """Writes `cameras.json`.

    Args:
        path: File to write (atomically).
        views: Cameras of the photos.
        extra: Further top-level fields, JSON values.
    """
    cameras = [
        {
            "file": view.file,
            "width": view.width,
            "height": view.height,
            "intrinsics": view.intrinsics.tolist(),
            "world_from_camera": view.world_from_camera.tolist(),
        }
        for view in views
    ]
    document = {"format": _FORMAT, "version": 1, "about": _NOTE, "cameras": cameras, **extra}
    write_text(path, json.dumps(document, indent=2) + "\n")


def is_own(path: Path | str) -> bool:
    """Whether a JSON file says that `write_cameras` wrote it.

    Raises:
        ValueError: If it is no JSON object.
    """
    return read_object(path).get("format") == _FORMAT


def read_cameras(path: Path | str) -> list[PhotoCamera]:
    """Reads `cameras.json`.

    Raises:
        ValueError: If the file is not one written by `write_cameras`.
    """
    document = read_object(path)
    with reading_fields(str(path), f"{_FORMAT} file"):
        if document["format"] != _FORMAT or document["version"] != 1:
            raise ValueError(
                f"{path}: expected format {_FORMAT!r} version 1, "
                f"got {document['format']!r} version {document['version']!r}"
            )
        return [
            PhotoCamera(
                camera["file"],
                int(camera["width"]),
                int(camera["height"]),
                np.array(camera["intrinsics"], np.float64),
                np.array(camera["world_from_camera"], np.float64),
            )
            for camera in document["cameras"]
        ]
