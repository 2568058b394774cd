"""COLMAP models, as text and in binary: `cameras`, `images`, `points3D`.

Poses are world-to-camera with a quaternion wxyz; axes and the pixel convention (centre of the first pixel at
0.5, 0.5) are those of this project. Every photo has a camera of its own, since photos may be mixed.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from nas3r.geometry import quat_from_matrix
from nas3r.io.atomic import write_bytes, write_text
from nas3r.io.photo_camera import PhotoCamera

_PINHOLE = 1  # number of the camera model in binary files


@dataclass(frozen=True)
class SparsePoints:
    """Coloured points, and where views see them.

    Attributes:
        positions: In the world [n, 3].
        colors: RGB [n, 3].
        error: Mean distance in pixels from where a point is seen to where it projects [n]; 0 where unknown.
        point: Of every observation the point [m].
        view: Of every observation the view [m].
        pixels: Where, in pixels of that view's photo [m, 2].
    """

    positions: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    error: Float[np.ndarray, "n"]
    point: Int[np.ndarray, "m"]
    view: Int[np.ndarray, "m"]
    pixels: Float[np.ndarray, "m 2"]

    @property
    def index_in_view(self) -> Int[np.ndarray, "m"]:
        """Of every observation its number among those of its view."""
        index = np.zeros(len(self.view), np.int64)
        for view in np.unique(self.view):
            seen = self.view == view
            index[seen] = np.arange(seen.sum())
        return index


def write_colmap(folder: Path | str, views: Sequence[PhotoCamera], points: SparsePoints) -> None:
    """Writes a COLMAP model, as text and in binary, each file atomically.

    Some tools read only one of the two forms.

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
    write_bytes(folder / "cameras.bin", _cameras_binary(views))
    write_bytes(folder / "images.bin", _images_binary(views, points))
    write_bytes(folder / "points3D.bin", _points_binary(points))


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
        lines.append(f"{i + 1} {_numbers(_pose(view))} {i + 1} {_name(view)}")
        seen = points.view == i
        observed = zip(points.pixels[seen].tolist(), points.point[seen].tolist(), strict=True)
        lines.append(" ".join(f"{x:.3f} {y:.3f} {j + 1}" for (x, y), j in observed))
    return "\n".join(lines) + "\n"


def _points_text(points: SparsePoints) -> str:
    lines = [
        "# 3D point list with one line of data per point:",
        "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)",
    ]
    tracks = _tracks(points)
    rows = zip(points.positions.tolist(), points.colors.tolist(), points.error.tolist(), tracks, strict=True)
    for j, (xyz, rgb, error, track) in enumerate(rows, 1):
        seen = " ".join(f"{view + 1} {index}" for view, index in track)
        lines.append(f"{j} {_numbers(xyz)} {rgb[0]} {rgb[1]} {rgb[2]} {_numbers([error])} {seen}")
    return "\n".join(lines) + "\n"


def _cameras_binary(views: Sequence[PhotoCamera]) -> bytes:
    parts = [struct.pack("<Q", len(views))]
    for i, view in enumerate(views, 1):
        k = view.intrinsics
        parts.append(struct.pack("<iiQQ", i, _PINHOLE, view.width, view.height))
        parts.append(struct.pack("<4d", k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
    return b"".join(parts)


def _images_binary(views: Sequence[PhotoCamera], points: SparsePoints) -> bytes:
    parts = [struct.pack("<Q", len(views))]
    for i, view in enumerate(views):
        parts.append(struct.pack("<i7di", i + 1, *_pose(view), i + 1))
        parts.append(_name(view).encode() + b"\0")
        seen = points.view == i
        observed = np.zeros(int(seen.sum()), [("xy", "<f8", 2), ("point", "<i8")])
        observed["xy"], observed["point"] = points.pixels[seen], points.point[seen] + 1
        parts += [struct.pack("<Q", len(observed)), observed.tobytes()]
    return b"".join(parts)


def _points_binary(points: SparsePoints) -> bytes:
    parts = [struct.pack("<Q", len(points.positions))]
    rows = zip(
        points.positions.tolist(), points.colors.tolist(), points.error.tolist(), _tracks(points), strict=True
    )
    for j, (xyz, rgb, error, track) in enumerate(rows, 1):
        parts.append(struct.pack("<Q3d3BdQ", j, *xyz, *rgb, error, len(track)))
        parts.append(np.array([(view + 1, index) for view, index in track], "<i4").tobytes())
    return b"".join(parts)


def _tracks(points: SparsePoints) -> list[list[tuple[int, int]]]:
    """Of every point the views that see it, with the number of the observation there."""
    tracks: list[list[tuple[int, int]]] = [[] for _ in range(len(points.positions))]
    seen = zip(points.point.tolist(), points.view.tolist(), points.index_in_view.tolist(), strict=True)
    for point, view, index in seen:
        tracks[point].append((view, index))
    return tracks


def _pose(view: PhotoCamera) -> list[float]:
    """Camera from world: quaternion, then translation."""
    pose = view.camera_from_world
    return [*quat_from_matrix(torch.from_numpy(pose[:3, :3])).tolist(), *pose[:3, 3].tolist()]


def _name(view: PhotoCamera) -> str:
    name = PurePosixPath(view.file)
    return str(name.relative_to("images") if name.parts[0] == "images" else name)


def _numbers(values: Sequence[float]) -> str:
    """Shortest text that reads back as the same float64."""
    return " ".join(repr(float(value)) for value in values)
