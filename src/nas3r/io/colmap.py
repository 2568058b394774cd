"""COLMAP models in text form: `cameras.txt`, `images.txt`, `points3D.txt`.

Poses are world-to-camera with a quaternion wxyz; axes and the pixel convention (centre of the first pixel at
0.5, 0.5) are those of this project. Every photo has a camera of its own, since photos may be mixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from nas3r.geometry import quat_from_matrix
from nas3r.io.atomic import write_text
from nas3r.io.photo_camera import PhotoCamera


@dataclass(frozen=True)
class SparsePoints:
    """Coloured points, each seen in the view whose depth map it comes from.

    Attributes:
        positions: In the world [n, 3].
        colors: RGB [n, 3].
        view: Index of the view [n].
        pixels: Where it is seen, in pixels of that view's photo [n, 2].
    """

    positions: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    view: Int[np.ndarray, "n"]
    pixels: Float[np.ndarray, "n 2"]


def write_colmap(folder: Path | str, views: Sequence[PhotoCamera], points: SparsePoints) -> None:
    """Writes a COLMAP model, each file atomically.

    Image names are relative to the folder `images` of the export, as COLMAP and 3DGS training expect.

    Args:
        folder: Usually `sparse/0`; created if missing.
        views: Cameras of the photos. Skew is not written: it is zero here.
        points: Sparse points, which splat training starts from.
    """
    folder = Path(folder)
    write_text(folder / "cameras.txt", _cameras_text(views))
    write_text(folder / "images.txt", _images_text(views, points))
    write_text(folder / "points3D.txt", _points_text(points))


def _cameras_text(views: Sequence[PhotoCamera]) -> str:
    lines = [
        "# Camera list with one line of data per camera:",
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
    ]
    for i, view in enumerate(views, 1):
        k = view.intrinsics
        parameters = _numbers([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
        lines.append(f"{i} PINHOLE {view.width} {view.height} {parameters}")
    return "\n".join(lines) + "\n"


def _images_text(views: Sequence[PhotoCamera], points: SparsePoints) -> str:
    lines = [
        "# Image list with two lines of data per image:",
        "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME",
        "#   POINTS2D[] as (X, Y, POINT3D_ID)",
    ]
    for i, view in enumerate(views):
        pose = view.camera_from_world
        quat = quat_from_matrix(torch.from_numpy(pose[:3, :3])).tolist()
        name = PurePosixPath(view.file)
        name = name.relative_to("images") if name.parts[0] == "images" else name
        lines.append(f"{i + 1} {_numbers([*quat, *pose[:3, 3]])} {i + 1} {name}")
        seen = np.flatnonzero(points.view == i)
        lines.append(" ".join(f"{x:.3f} {y:.3f} {j + 1}" for (x, y), j in zip(points.pixels[seen], seen)))
    return "\n".join(lines) + "\n"


def _points_text(points: SparsePoints) -> str:
    lines = [
        "# 3D point list with one line of data per point:",
        "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)",
    ]
    index_in_view = np.zeros(len(points.view), np.int64)
    for i in np.unique(points.view):
        seen = points.view == i
        index_in_view[seen] = np.arange(seen.sum())
    for j, (xyz, rgb, view, index) in enumerate(
        zip(points.positions.tolist(), points.colors.tolist(), points.view.tolist(), index_in_view.tolist()),
        1,
    ):
        lines.append(f"{j} {_numbers(xyz)} {rgb[0]} {rgb[1]} {rgb[2]} 0 {view + 1} {index}")
    return "\n".join(lines) + "\n"


def _numbers(values: Sequence[float]) -> str:
    """Shortest text that reads back as the same float64."""
    return " ".join(repr(float(value)) for value in values)
